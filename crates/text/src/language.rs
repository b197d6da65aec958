//! Languages of texts, for tokenizers of models that translate.

use tokenizers::processors::template::TemplateProcessing;

use crate::folder::Inner;
use crate::{TextError, Tokenizer};

/// How a tokenizer says in which language a text is, or is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Languages {
    /// The language of texts, as the folder names it.
    pub source: Option<String>,
    /// The language of answers, as the folder names it.
    pub target: Option<String>,
    /// Where the language stands.
    pub place: LanguagePlace,
    /// How a language is written as a token.
    pub(crate) form: Form,
    /// The special tokens that stand for no language.
    pub(crate) others: Vec<String>,
}

/// Where a language stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanguagePlace {
    /// The text's own before it, as a special token.
    Before,
    /// The text's own after its end, as a special token.
    After,
    /// The answer's at the beginning of the text, as `>>fra<<`.
    InText,
}

/// How a language is written as a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// As `__fr__`.
    Underscored,
    /// As `>>fra<<`.
    Angled,
}

impl Languages {
    /// The language as a token.
    pub fn token(&self, language: &str) -> String {
        match self.form {
            Form::Plain => language.to_owned(),
            Form::Underscored => format!("__{language}__"),
            Form::Angled => format!(">>{language}<<"),
        }
    }
}

/// Puts a language and an end around texts.
pub(crate) fn around(
    place: LanguagePlace,
    language: (&str, u32),
    eos: (&str, u32),
) -> Result<TemplateProcessing, String> {
    match place {
        LanguagePlace::Before => wrapped(&[language], &[eos]),
        LanguagePlace::After => wrapped(&[], &[eos, language]),
        LanguagePlace::InText => wrapped(&[], &[eos]),
    }
}

/// Puts special tokens around texts; a second text follows the first one.
pub(crate) fn wrapped(first: &[(&str, u32)], last: &[(&str, u32)]) -> Result<TemplateProcessing, String> {
    let name = |tokens: &[(&str, u32)]| tokens.iter().map(|(text, _)| (*text).to_owned()).collect::<Vec<_>>();
    let around = |texts: &[&str]| {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        [name(first), texts, name(last)].concat()
    };
    let mut tokens: Vec<_> = first.iter().chain(last).map(|(text, id)| ((*text).to_owned(), *id)).collect();
    tokens.sort();
    tokens.dedup();
    TemplateProcessing::builder()
        .try_single(around(&["$A"]))
        .and_then(|builder| builder.try_pair(around(&["$A", "$B"])))
        .map_err(|error| error.to_string())?
        .special_tokens(tokens)
        .build()
        .map_err(|error| error.to_string())
}

impl Tokenizer {
    /// How texts say their language, where they do.
    pub fn languages(&self) -> Option<&Languages> {
        self.languages.as_ref()
    }

    /// The token of a language.
    ///
    /// # Errors
    /// There is none, or texts have no languages.
    pub fn language_token(&self, language: &str) -> Result<u32, TextError> {
        let unknown = || TextError::Language { language: language.to_owned(), example: self.example() };
        let languages = self.languages.as_ref().ok_or_else(unknown)?;
        let token = languages.token(language);
        let id = match self.inner() {
            // Where they are listed in another order, these are the ids that are meant.
            Inner::Pieces(inner) => inner.languages.get(&token).copied().or_else(|| inner.token_to_id(&token)),
            Inner::Fast(inner) => inner.token_to_id(&token),
        };
        let id = id.filter(|_| !languages.others.contains(&token)).ok_or_else(unknown)?;
        let known = match languages.form {
            Form::Plain => self.is_special(id),
            Form::Underscored | Form::Angled => true,
        };
        known.then_some(id).ok_or_else(unknown)
    }

    /// A language that there is.
    fn example(&self) -> Option<String> {
        let languages = self.languages.as_ref()?;
        let named = [&languages.source, &languages.target];
        named.into_iter().flatten().next().cloned().or_else(|| {
            let angled = |token: String| token.strip_prefix(">>")?.strip_suffix("<<").map(str::to_owned);
            (0..self.vocabulary_size() as u32).filter_map(|id| self.id_to_token(id)).find_map(angled)
        })
    }
}
