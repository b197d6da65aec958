//! translation: a text to the same in another language. The task is also `translation_en_to_fr`, with any languages.
//!
//! Bodies, parameters and defaults are those of [text2text-generation](crate::text2text_generation). Where a model knows several
//! languages, `src_lang` and `tgt_lang` say which, in the model's own codes (`en_XX`, `fra_Latn`, `en`); those that a request
//! leaves out are those of the task's name, else those that the model's folder names. They do with models that differ what each
//! wants:
//!
//! - mBART, NLLB, M2M100: the token of `src_lang` around the text, that of `tgt_lang` at the beginning of the answer.
//! - Marian's multilingual models: `>>tgt_lang<<` before the text, unless it begins with one.
//! - T5: the settings that its config.json has under `translation_en_to_fr`, with a prefix as `translate English to French: `; the
//!   first there where nothing is asked for.
//! - models of one pair of languages: nothing.
//!
//! Reply: `[{"translation_text": ...}]`.

use centuple_text::{LanguagePlace, TextError};

use crate::{
    error::TaskError,
    generation_task::{GenerationTask, LanguagePair},
    text_generation::{Context, Parameters},
};

/// The hub's name of the task.
pub const NAME: &str = "translation";

/// The field of a reply that has the text.
pub const REPLY: &str = "translation_text";

/// The languages of a request, as its model takes them.
pub(crate) struct Chosen {
    /// What the request named.
    named: (Option<String>, Option<String>),
    /// The texts' language.
    pub(crate) source: Option<String>,
    /// The answers' language: how it is written as a token, and its id.
    pub(crate) target: Option<(String, u32)>,
    /// Where languages stand, where they are tokens.
    pub(crate) place: Option<LanguagePlace>,
}

/// The languages of a request.
///
/// # Errors
/// The model has no such language, or it must be told which.
pub(crate) fn languages(
    asked: &Parameters,
    task: Option<&GenerationTask>,
    context: &Context<'_>,
) -> Result<Chosen, TaskError> {
    let named = match (&asked.src_lang, &asked.tgt_lang, task) {
        (None, None, Some(GenerationTask::Translation(Some(LanguagePair { source, target })))) => {
            (Some(source.clone()), Some(target.clone()))
        }
        (source, target, _) => (source.clone(), target.clone()),
    };
    let tokenizer = &context.model.tokenizer;
    let none = Chosen { named: named.clone(), source: None, target: None, place: None };
    let Some(known) = tokenizer.languages() else { return Ok(none) };
    let wrong = |name| move |error: TextError| TaskError::Parameter { name, reason: error.to_string() };
    let token = |language: &str| Ok::<_, TextError>((known.token(language), tokenizer.language_token(language)?));
    if known.place == LanguagePlace::InText {
        let Some(language) = &named.1 else { return Ok(none) };
        return match token(language) {
            Ok(token) => Ok(Chosen { target: Some(token), place: Some(known.place), ..none }),
            // A model of one pair of languages, or a task whose name means as much.
            Err(TextError::Language { example, .. }) if example.is_none() || asked.tgt_lang.is_none() => Ok(none),
            Err(error) => Err(wrong("tgt_lang")(error)),
        };
    }
    let source = named.0.clone().or_else(|| known.source.clone());
    if let Some(source) = &source {
        token(source).map_err(wrong("src_lang"))?;
    }
    let target = named.1.clone().or_else(|| known.target.clone());
    let translates = matches!(task, Some(GenerationTask::Translation(_)));
    let missing = |name| {
        let example = known.source.as_ref().or(known.target.as_ref());
        let example = example.map_or_else(String::new, |example| format!(", as {example}"));
        Err(TaskError::Parameter { name, reason: format!("the model knows several languages; say which{example}") })
    };
    if translates && source.is_none() {
        return missing("src_lang");
    }
    if translates && target.is_none() && context.defaults.parameters.forced_bos_token_id.is_none() {
        return missing("tgt_lang");
    }
    // Without a word on it, other tasks begin their answers as the model's settings say.
    let target = target.filter(|_| translates || named.1.is_some());
    let target = target.as_deref().map(token).transpose().map_err(wrong("tgt_lang"))?;
    Ok(Chosen { named, source, target, place: Some(known.place) })
}

/// The name under which a model has settings for the translation, if it has any.
///
/// # Errors
/// It has some for other languages only.
pub(crate) fn settings_name(
    task: Option<&GenerationTask>,
    languages: &Chosen,
    context: &Context<'_>,
) -> Result<Option<String>, TaskError> {
    let settings = &context.defaults.settings.tasks;
    let mut names = settings.keys().filter(|name| name.starts_with(NAME));
    let pair = match (&languages.named, task) {
        ((Some(source), Some(target)), _) => LanguagePair { source: source.clone(), target: target.clone() },
        (_, Some(GenerationTask::Translation(Some(pair)))) => pair.clone(),
        _ => return Ok(names.next().cloned()),
    };
    let name = pair.to_string();
    if settings.contains_key(&name) || languages.place.is_some() {
        return Ok(Some(name));
    }
    let known: Vec<_> = names.map(String::as_str).collect();
    if known.is_empty() {
        return Ok(None);
    }
    let reason = format!("the model has settings for {}, and none for {name}", known.join(", "));
    Err(TaskError::Parameter { name: "tgt_lang", reason })
}
