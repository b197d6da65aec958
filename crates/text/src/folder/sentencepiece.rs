//! Tokenizers of sentencepiece models.

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip as StripDecoder;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    Lowercase, NFKD, NormalizerWrapper, Precompiled, Prepend, Replace, Sequence, Strip, StripAccents,
};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizerSequence;
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::added::extra_ids;
use super::class::SentencePieceKind;
use super::languages::{LANGUAGES, LANGUAGES_50};
use super::{Source, broken};
use crate::TextError;
use crate::scores::{Scored, merges_of_scores};
use crate::sentencepiece::SPACE;
use crate::sentencepiece::model::{Model, Piece, Trainer};

/// A tokenizer from the class's model file, without the class's special tokens.
pub(super) fn convert(source: &Source<'_>, kind: SentencePieceKind) -> Result<tokenizers::Tokenizer, TextError> {
    let path = source.folder.join(kind.files().first().copied().unwrap_or_default());
    let failed = |reason: String| broken(&path, reason);
    let model = Model::read(&path)?;
    let converter = Converter { source, kind, model: &model };
    let wrong = |error: tokenizers::Error| failed(error.to_string());
    let mut tokenizer = match model.trainer.clone().unwrap_or_default().algorithm() {
        Trainer::UNIGRAM => tokenizers::Tokenizer::new(converter.unigram()?.map_err(wrong)?),
        Trainer::BPE => tokenizers::Tokenizer::new(converter.bpe()?.map_err(wrong)?),
        other => return Err(failed(format!("its algorithm {other} is neither unigram nor BPE"))),
    };
    tokenizer.with_normalizer(converter.normalizer()?.transpose().map_err(wrong)?).map_err(wrong)?;
    tokenizer.with_pre_tokenizer(converter.pre_tokenizer()?);
    converter.add_decoder(&mut tokenizer)?;
    tokenizer.add_tokens(converter.own_tokens()).map_err(wrong)?;
    Ok(tokenizer)
}

struct Converter<'a> {
    source: &'a Source<'a>,
    kind: SentencePieceKind,
    model: &'a Model,
}

impl Converter<'_> {
    /// Every piece in the order of its id in the class, which may be another than in the model.
    fn vocabulary(&self) -> Result<Vec<Scored>, TextError> {
        let own = |from: usize| {
            let pieces = self.model.pieces.get(from..).unwrap_or_default();
            pieces.iter().map(|piece| (piece.text().to_string(), f64::from(piece.score())))
        };
        let named = |texts: &[&str]| texts.iter().map(|text| (text.to_string(), 0.0)).collect::<Vec<_>>();
        let fairseq = ["<s>", "<pad>", "</s>", "<unk>"];
        Ok(match self.kind {
            SentencePieceKind::Albert | SentencePieceKind::Xlnet => own(0).map(numbers_end_before_commas).collect(),
            SentencePieceKind::BigBird | SentencePieceKind::DebertaV2 => own(0).collect(),
            SentencePieceKind::Camembert => {
                let mut all = named(&["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"]);
                all[4].1 = -100.0;
                all.into_iter().chain(own(1)).chain(named(&["<mask>"])).collect()
            }
            SentencePieceKind::XlmRoberta => {
                named(&fairseq).into_iter().chain(own(3)).chain(named(&["<mask>"])).collect()
            }
            SentencePieceKind::Mbart | SentencePieceKind::Mbart50 => {
                let languages = if self.kind == SentencePieceKind::Mbart { LANGUAGES } else { LANGUAGES_50 };
                let ends = named(languages).into_iter().chain(named(&["<mask>"]));
                named(&fairseq).into_iter().chain(own(3)).chain(ends).collect()
            }
            SentencePieceKind::Nllb => named(&fairseq).into_iter().chain(own(3)).collect(),
            SentencePieceKind::T5 => {
                let extra = (0..extra_ids(self.source.config)?).rev();
                own(0).chain(extra.map(|id| (format!("<extra_id_{id}>"), 0.0))).collect()
            }
            SentencePieceKind::Llama => {
                let first = self
                    .model
                    .pieces
                    .iter()
                    .take(3)
                    .zip(0u32..)
                    .map(|(piece, id)| (self.source.added.listed(id).unwrap_or(piece.text()).to_string(), 0.0));
                first.chain(own(3)).collect()
            }
        })
    }

    /// Whether unknown characters become bytes.
    fn has_bytes(&self) -> bool {
        self.kind == SentencePieceKind::Llama
    }

    fn unigram(&self) -> Result<tokenizers::Result<Unigram>, TextError> {
        let unk = match self.kind {
            SentencePieceKind::Camembert
            | SentencePieceKind::Mbart
            | SentencePieceKind::Mbart50
            | SentencePieceKind::Nllb
            | SentencePieceKind::XlmRoberta => Some(3),
            SentencePieceKind::Llama => Some(0),
            SentencePieceKind::Albert
            | SentencePieceKind::BigBird
            | SentencePieceKind::DebertaV2
            | SentencePieceKind::T5
            | SentencePieceKind::Xlnet => usize::try_from(self.trainer().unk_id()).ok(),
        };
        Ok(Unigram::from(self.vocabulary()?, unk, self.has_bytes()))
    }

    fn bpe(&self) -> Result<tokenizers::Result<BPE>, TextError> {
        let scored = self.vocabulary()?;
        let merges = merges_of_scores(self.model.pieces.iter().map(Piece::text), &scored);
        let ids = scored.into_iter().zip(0u32..).map(|((text, _), id)| (text, id)).collect::<Vocab>();
        let builder = BPE::builder().vocab_and_merges(ids, merges).unk_token(self.trainer().unk_piece().to_string());
        Ok(builder.fuse_unk(true).byte_fallback(self.has_bytes()).build())
    }

    fn trainer(&self) -> Trainer {
        self.model.trainer.clone().unwrap_or_default()
    }

    /// The model's tokens that are found in texts before all else.
    fn own_tokens(&self) -> Vec<AddedToken> {
        let is_token = |piece: &&Piece| matches!(piece.kind(), Piece::CONTROL | Piece::USER_DEFINED);
        let token = |piece: &Piece| {
            AddedToken::from(piece.text().to_string(), piece.kind() == Piece::CONTROL).normalized(false)
        };
        self.model.pieces.iter().filter(is_token).map(token).collect()
    }

    fn normalizer(&self) -> Result<Option<tokenizers::Result<NormalizerWrapper>>, TextError> {
        let config = self.source.config;
        let mut steps = match self.kind {
            SentencePieceKind::Llama => {
                if !self.is_legacy()? {
                    return Ok(None);
                }
                let prefix = self.adds_prefix()?.then(|| Prepend::new(SPACE.to_string()).into());
                return Ok(Some(
                    replace(" ", SPACE)
                        .map(|spaces| Sequence::new(prefix.into_iter().chain([spaces]).collect()).into()),
                ));
            }
            SentencePieceKind::Albert | SentencePieceKind::Xlnet => {
                let lowercase = config.flag("do_lower_case")?.unwrap_or(self.kind == SentencePieceKind::Albert);
                let mut steps = vec![replace("``", "\""), replace("''", "\"")];
                if !config.flag("keep_accents")?.unwrap_or(false) {
                    steps.extend([Ok(NFKD.into()), Ok(StripAccents.into())]);
                }
                steps.extend(lowercase.then(|| Ok(Lowercase.into())));
                steps
            }
            SentencePieceKind::DebertaV2 => {
                let lowercase = config.flag("do_lower_case")?.unwrap_or(false);
                lowercase.then(|| Ok(Lowercase.into())).into_iter().chain([Ok(Strip::new(true, true).into())]).collect()
            }
            SentencePieceKind::BigBird
            | SentencePieceKind::Camembert
            | SentencePieceKind::Mbart
            | SentencePieceKind::Mbart50
            | SentencePieceKind::Nllb
            | SentencePieceKind::T5
            | SentencePieceKind::XlmRoberta => Vec::new(),
        };
        steps.extend(self.charsmap());
        steps.extend(match self.kind {
            SentencePieceKind::Albert | SentencePieceKind::Xlnet | SentencePieceKind::DebertaV2 => vec![spaces(" ")],
            SentencePieceKind::BigBird
            | SentencePieceKind::Camembert
            | SentencePieceKind::Llama
            | SentencePieceKind::Mbart
            | SentencePieceKind::Mbart50
            | SentencePieceKind::Nllb
            | SentencePieceKind::T5
            | SentencePieceKind::XlmRoberta => vec![Ok(Strip::new(false, true).into()), spaces(SPACE)],
        });
        let steps = steps.into_iter().collect::<tokenizers::Result<Vec<_>>>();
        Ok(Some(steps.map(|steps| Sequence::new(steps).into())))
    }

    /// The model's own table of what characters become, if it has one.
    fn charsmap(&self) -> Option<tokenizers::Result<NormalizerWrapper>> {
        let charsmap = self.model.normalizer.as_ref()?.charsmap();
        if charsmap.is_empty() {
            return None;
        }
        Some(Precompiled::from(charsmap).map(NormalizerWrapper::from).map_err(|error| error.to_string().into()))
    }

    fn pre_tokenizer(&self) -> Result<Option<PreTokenizerWrapper>, TextError> {
        if self.kind == SentencePieceKind::Llama {
            return Ok((!self.is_legacy()?).then_some(self.metaspace(false)?.into()));
        }
        let metaspace = self.metaspace(true)?;
        if self.kind != SentencePieceKind::DebertaV2 {
            return Ok(Some(metaspace.into()));
        }
        let punctuation = self.source.config.flag("split_by_punct")?.unwrap_or(false);
        let punctuation = punctuation.then(|| Punctuation::new(SplitDelimiterBehavior::Isolated).into());
        let steps = punctuation.into_iter().chain([metaspace.into()]).collect();
        Ok(Some(PreTokenizerSequence::new(steps).into()))
    }

    fn add_decoder(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<(), TextError> {
        if self.kind != SentencePieceKind::Llama {
            tokenizer.with_decoder(Some(self.metaspace(true)?));
            return Ok(());
        }
        let spaces = Replace::new(SPACE, " ").map_err(|error| broken(self.source.folder, error.to_string()))?;
        let mut steps = vec![spaces.into(), ByteFallback::new().into(), Fuse::new().into()];
        if self.adds_prefix()? {
            steps.push(StripDecoder::new(' ', 1, 0).into());
        }
        tokenizer.with_decoder(Some(DecoderSequence::new(steps)));
        Ok(())
    }

    fn metaspace(&self, split: bool) -> Result<Metaspace, TextError> {
        let scheme = match (self.adds_prefix()?, self.is_legacy()?) {
            (false, _) => PrependScheme::Never,
            (true, true) => PrependScheme::Always,
            (true, false) => PrependScheme::First,
        };
        Ok(Metaspace::new('\u{2581}', scheme, split))
    }

    /// Whether texts begin with a space that isn't there.
    fn adds_prefix(&self) -> Result<bool, TextError> {
        if self.has_space_settings() { self.source.config.flag_unless_null("add_prefix_space", true) } else { Ok(true) }
    }

    /// Whether such a space also follows special tokens.
    fn is_legacy(&self) -> Result<bool, TextError> {
        if self.has_space_settings() { Ok(self.source.config.flag("legacy")?.unwrap_or(true)) } else { Ok(true) }
    }

    /// Whether the class lets its configuration say where such spaces are.
    fn has_space_settings(&self) -> bool {
        match self.kind {
            SentencePieceKind::T5 | SentencePieceKind::Llama => true,
            SentencePieceKind::Albert
            | SentencePieceKind::BigBird
            | SentencePieceKind::Camembert
            | SentencePieceKind::DebertaV2
            | SentencePieceKind::Mbart
            | SentencePieceKind::Mbart50
            | SentencePieceKind::Nllb
            | SentencePieceKind::XlmRoberta
            | SentencePieceKind::Xlnet => false,
        }
    }
}

/// Makes a piece like `9,` unlikely.
fn numbers_end_before_commas((text, score): Scored) -> Scored {
    let mut end = text.chars().rev();
    let joins = end.next() == Some(',') && end.next().is_some_and(char::is_numeric);
    let score = if joins { score - 100.0 } else { score };
    (text, score)
}

fn replace(pattern: &str, content: &str) -> tokenizers::Result<NormalizerWrapper> {
    Replace::new(pattern, content).map(NormalizerWrapper::from)
}

/// Replaces several spaces in a row.
fn spaces(content: &str) -> tokenizers::Result<NormalizerWrapper> {
    Replace::new(ReplacePattern::Regex(" {2,}".to_string()), content).map(NormalizerWrapper::from)
}
