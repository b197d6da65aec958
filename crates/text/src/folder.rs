//! The tokenizer files of a model folder.

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, Lowercase, NormalizerWrapper, Sequence};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Model};

use crate::TextError;

/// The largest tokenizer file that is read; the largest public ones have about 35 MB.
const FILE_LIMIT: u64 = 256 << 20;

/// `tokenizer_config.json`, as far as it matters.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct TokenizerConfig {
    model_max_length: Option<f64>,
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    strip_accents: Option<bool>,
    unk_token: Option<Special>,
    cls_token: Option<Special>,
    sep_token: Option<Special>,
    pad_token: Option<Special>,
    mask_token: Option<Special>,
}

/// A special token, written as its text or as an object with its properties.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Object { content: String },
}

impl TokenizerConfig {
    /// Reads the folder's `tokenizer_config.json`; everything is unset where there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join("tokenizer_config.json");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let bytes = read(&path)?;
        serde_json::from_slice(&bytes).map_err(|error| TextError::Broken { path, reason: error.to_string() })
    }

    /// The tokenizer's limit in tokens. "None" is commonly written as 1e30.
    pub(crate) fn model_max_length(&self) -> Option<usize> {
        let limit = self.model_max_length?;
        (limit >= 1.0 && limit < f64::from(u32::MAX)).then_some(limit as usize)
    }

    /// Whether the class is one of BERT's own, which overrules the normaliser in tokenizer.json.
    fn is_bert(&self) -> bool {
        let class = self.tokenizer_class.as_deref().unwrap_or_default();
        class.starts_with("Bert") || class.starts_with("DistilBert") || class.starts_with("Electra")
    }
}

/// Opens the tokenizer of a model folder, without truncation and padding.
///
/// With `lowercase`, text is lower-cased before the tokenizer's own normaliser.
pub(crate) fn open(folder: &Path, lowercase: bool) -> Result<tokenizers::Tokenizer, TextError> {
    let config = TokenizerConfig::open(folder)?;
    let (json, vocabulary) = (folder.join("tokenizer.json"), folder.join("vocab.txt"));
    let mut tokenizer = if json.exists() {
        from_json(json, &config)?
    } else if vocabulary.exists() {
        from_vocabulary(vocabulary, &config)?
    } else {
        return Err(TextError::Missing { folder: folder.to_path_buf() });
    };
    if lowercase {
        let own = tokenizer.get_normalizer().cloned();
        let sequence = std::iter::once(NormalizerWrapper::from(Lowercase)).chain(own).collect();
        set_normalizer(&mut tokenizer, folder, Sequence::new(sequence))?;
    }
    Ok(tokenizer)
}

fn from_json(path: PathBuf, config: &TokenizerConfig) -> Result<tokenizers::Tokenizer, TextError> {
    let broken = |reason: String| TextError::Broken { path: path.clone(), reason };
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(read(&path)?).map_err(|error| broken(error.to_string()))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| broken(error.to_string()))?;
    if let Some(NormalizerWrapper::BertNormalizer(own)) = tokenizer.get_normalizer()
        && config.is_bert()
    {
        let mut normalizer = *own;
        normalizer.lowercase = config.do_lower_case.unwrap_or(own.lowercase);
        normalizer.handle_chinese_chars = config.tokenize_chinese_chars.unwrap_or(own.handle_chinese_chars);
        normalizer.strip_accents = config.strip_accents.or(own.strip_accents);
        set_normalizer(&mut tokenizer, &path, normalizer)?;
    }
    Ok(tokenizer)
}

/// A BERT tokenizer from its list of word pieces.
fn from_vocabulary(path: PathBuf, config: &TokenizerConfig) -> Result<tokenizers::Tokenizer, TextError> {
    let broken = |reason: String| TextError::Broken { path: path.clone(), reason };
    if !config.is_bert() && config.tokenizer_class.is_some() {
        return Err(broken(format!(
            "without a tokenizer.json, vocab.txt is understood for BERT tokenizers only, not for {}",
            config.tokenizer_class.as_deref().unwrap_or_default()
        )));
    }
    let special = |token: &Option<Special>, default: &str| match token {
        Some(Special::Text(text) | Special::Object { content: text }) => text.clone(),
        None => default.to_string(),
    };
    let [unk, cls, sep] = [(&config.unk_token, "[UNK]"), (&config.cls_token, "[CLS]"), (&config.sep_token, "[SEP]")]
        .map(|(token, default)| special(token, default));
    let vocabulary = WordPiece::read_bytes(&read(&path)?).map_err(|error| broken(error.to_string()))?;
    let model = WordPiece::builder()
        .vocab(vocabulary)
        .unk_token(unk.clone())
        .build()
        .map_err(|error| broken(error.to_string()))?;
    let id =
        |token: &str| model.token_to_id(token).ok_or_else(|| broken(format!("`{token}` is not in the vocabulary")));
    id(&unk)?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{cls} $A {sep}"))
        .and_then(|builder| builder.try_pair(format!("{cls} $A {sep} $B:1 {sep}:1")))
        .map_err(|error| broken(error.to_string()))?
        .special_tokens(vec![(cls.clone(), id(&cls)?), (sep.clone(), id(&sep)?)])
        .build()
        .map_err(|error| broken(error.to_string()))?;
    let lowercase = config.do_lower_case.unwrap_or(true);
    let chinese = config.tokenize_chinese_chars.unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, config.strip_accents, lowercase);
    let specials = [unk, cls, sep, special(&config.pad_token, "[PAD]"), special(&config.mask_token, "[MASK]")]
        .into_iter()
        .filter(|token| model.token_to_id(token).is_some())
        .map(|token| AddedToken::from(token, true))
        .collect::<Vec<_>>();
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    set_normalizer(&mut tokenizer, &path, normalizer)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer)).with_post_processor(Some(template));
    tokenizer.add_special_tokens(specials).map_err(|error| broken(error.to_string()))?;
    Ok(tokenizer)
}

fn set_normalizer(
    tokenizer: &mut tokenizers::Tokenizer,
    path: &Path,
    normalizer: impl Into<NormalizerWrapper>,
) -> Result<(), TextError> {
    match tokenizer.with_normalizer(Some(normalizer)) {
        Ok(_) => Ok(()),
        Err(error) => Err(TextError::Broken { path: path.to_path_buf(), reason: error.to_string() }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    let failed = |source| TextError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(failed(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {FILE_LIMIT} bytes"))));
    }
    Ok(bytes)
}
