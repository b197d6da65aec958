//! Sentence-transformers folders in the library's old and new spellings, and what is refused.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use centuple_models::checkpoint::sentence_transformers::{
    Composition, DenseActivation, HeadModule, Pooling, PoolingMode, Similarity, SpladePooling, SpladeStrategy,
};
use centuple_models::checkpoint::{CheckpointError, SentenceTransformer};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

/// A folder that one test changes.
struct Folder(TempDir);

impl Folder {
    /// Transformer in the root, mean pooling over 4 features, Normalize without a folder.
    fn new() -> Result<Self, Box<dyn Error>> {
        let folder = Self(tempfile::tempdir()?);
        folder.modules(&[
            ("", "models.Transformer"),
            ("1_Pooling", "models.Pooling"),
            ("2_Normalize", "models.Normalize"),
        ])?;
        folder.pooling(json!({"word_embedding_dimension": 4, "pooling_mode_mean_tokens": true}))?;
        Ok(folder)
    }

    /// Four features through a Dense module to two.
    fn with_dense(config: Value) -> Result<Self, Box<dyn Error>> {
        let folder = Self::new()?;
        folder.modules(&[("", "models.Transformer"), ("1_Pooling", "models.Pooling"), ("2_Dense", "models.Dense")])?;
        folder.write("2_Dense/config.json", config)?;
        let bytes: Vec<u8> = (0..8u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        let tensors = BTreeMap::from([
            ("linear.weight", TensorView::new(Dtype::F32, vec![2, 4], &bytes)?),
            ("linear.bias", TensorView::new(Dtype::F32, vec![2], &bytes[..8])?),
        ]);
        fs::write(folder.path().join("2_Dense/model.safetensors"), safetensors::serialize(tensors, None)?)?;
        Ok(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: Value) -> Outcome {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(self.path()))?;
        Ok(fs::write(path, content.to_string())?)
    }

    fn modules(&self, modules: &[(&str, &str)]) -> Outcome {
        let entry = |(index, (path, class)): (usize, &(&str, &str))| json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.{class}")});
        self.write("modules.json", modules.iter().enumerate().map(entry).collect())
    }

    fn pooling(&self, config: Value) -> Outcome {
        self.write("1_Pooling/config.json", config)
    }

    fn open(&self) -> Result<SentenceTransformer, CheckpointError> {
        SentenceTransformer::open(self.path()).map(|model| model.expect("the folder has a modules.json"))
    }

    #[track_caller]
    fn assert_refused(&self, expected: &str) {
        let message = self.open().expect_err("must be refused").to_string();
        assert!(message.contains(expected), "{message}");
    }
}

fn pooling_of(model: &SentenceTransformer) -> &Pooling {
    let Composition::Embedding { pooling, .. } = &model.composition else { panic!("it makes one vector per text") };
    pooling
}

fn head_of(model: &SentenceTransformer) -> &[HeadModule] {
    let Composition::Embedding { head, .. } = &model.composition else { panic!("it makes one vector per text") };
    head
}

#[test]
fn a_folder_without_modules_is_none() -> Outcome {
    assert!(SentenceTransformer::open(tempfile::tempdir()?.path())?.is_none());
    Ok(())
}

#[test]
fn defaults() -> Outcome {
    let folder = Folder::new()?;
    let model = folder.open()?;
    assert_eq!(model.transformer.components().collect::<Vec<_>>(), folder.path().components().collect::<Vec<_>>());
    assert_eq!(*pooling_of(&model), Pooling { dimension: 4, modes: vec![PoolingMode::Mean], include_prompt: true });
    assert!(matches!(head_of(&model), [HeadModule::Normalize]));
    assert_eq!((model.max_seq_length, model.do_lower_case), (None, false));
    assert!(model.prompts.is_empty() && model.default_prompt_name.is_none());
    assert_eq!(model.similarity, Similarity::Cosine);
    Ok(())
}

#[test]
fn settings_and_prompts_are_read() -> Outcome {
    let folder = Folder::new()?;
    folder.write("sentence_bert_config.json", json!({"max_seq_length": 256, "do_lower_case": true}))?;
    folder.write(
        "config_sentence_transformers.json",
        json!({"prompts": {"query": "query: ", "document": null}, "default_prompt_name": "query", "similarity_fn_name": "dot"}),
    )?;
    let model = folder.open()?;
    assert_eq!((model.max_seq_length, model.do_lower_case), (Some(256), true));
    assert_eq!(model.prompts.get("query").map(String::as_str), Some("query: "));
    assert_eq!(model.prompts.get("document").map(String::as_str), Some(""));
    assert_eq!(model.default_prompt_name.as_deref(), Some("query"));
    assert_eq!(model.similarity, Similarity::Dot);
    Ok(())
}

#[test]
fn version_6_spelling() -> Outcome {
    let folder = Folder::new()?;
    folder.modules(&[
        ("0_Transformer", "base.modules.transformer.Transformer"),
        ("1_Pooling", "sentence_transformer.modules.pooling.Pooling"),
        ("2_Normalize", "base.modules.normalize.Normalize"),
    ])?;
    folder.write(
        "0_Transformer/sentence_bert_config.json",
        json!({
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        }),
    )?;
    folder
        .pooling(json!({"embedding_dimension": 4, "pooling_mode": ["cls", "weightedmean"], "include_prompt": false}))?;
    folder.write("2_Normalize/config.json", json!({"module_input_name": "sentence_embedding"}))?;
    let model = folder.open()?;
    assert_eq!(model.transformer, folder.path().join("0_Transformer"));
    assert_eq!(pooling_of(&model).modes, [PoolingMode::Cls, PoolingMode::WeightedMean]);
    assert!(!pooling_of(&model).include_prompt);
    folder.pooling(json!({"embedding_dimension": 4, "pooling_mode": "lasttoken"}))?;
    assert_eq!(pooling_of(&folder.open()?).modes, [PoolingMode::LastToken]);
    Ok(())
}

#[test]
fn several_modes_keep_the_librarys_order() -> Outcome {
    let folder = Folder::new()?;
    folder.pooling(json!({
        "word_embedding_dimension": 4,
        "pooling_mode_lasttoken": true,
        "pooling_mode_weightedmean_tokens": true,
        "pooling_mode_mean_sqrt_len_tokens": true,
        "pooling_mode_mean_tokens": true,
        "pooling_mode_max_tokens": true,
        "pooling_mode_cls_token": true,
    }))?;
    let modes: Vec<String> = pooling_of(&folder.open()?).modes.iter().map(ToString::to_string).collect();
    assert_eq!(modes, ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]);
    folder.pooling(json!({"word_embedding_dimension": 4, "pooling_mode_mean_tokens": false}))?;
    assert_eq!(pooling_of(&folder.open()?).modes, [PoolingMode::Mean]);
    Ok(())
}

#[test]
fn dense_modules_carry_their_weights() -> Outcome {
    let folder = Folder::with_dense(json!({
        "in_features": 4, "out_features": 2, "bias": true,
        "activation_function": "torch.nn.modules.linear.Identity",
    }))?;
    let model = folder.open()?;
    let [HeadModule::Dense(dense)] = head_of(&model) else { panic!("one Dense module was written") };
    assert_eq!(dense.activation, DenseActivation::Identity);
    assert_eq!(dense.weight.as_f32()?, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(dense.bias.as_ref().map(|bias| bias.as_f32().map(<[f32]>::to_vec)).transpose()?, Some(vec![0.0, 1.0]));
    let plain = Folder::with_dense(json!({"in_features": 4, "out_features": 2, "bias": false}))?.open()?;
    let [HeadModule::Dense(dense)] = head_of(&plain) else { panic!("one Dense module was written") };
    assert_eq!((dense.activation, dense.bias.is_none()), (DenseActivation::Tanh, true));
    Ok(())
}

#[test]
fn unsupported_dense_settings_are_named() -> Outcome {
    let refused = |mut config: Value, field: &str, value: Value, expected: &str| -> Outcome {
        config[field] = value;
        Folder::with_dense(config)?.assert_refused(expected);
        Ok(())
    };
    let config = || json!({"in_features": 4, "out_features": 2});
    refused(config(), "in_features", json!(5), "in_features is 5, but its input has 4")?;
    refused(config(), "out_features", json!(3), "has the shape [2, 4], but the configuration asks for [3, 4]")?;
    refused(config(), "activation_function", json!("my.Tanh"), "activation_function `my.Tanh`")?;
    refused(config(), "activation_function", json!("torch.nn.modules.activation.Mish"), "Mish` is not supported")?;
    refused(config(), "use_residual", json!(true), "use_residual")?;
    refused(config(), "module_input_name", json!("token_embeddings"), "module_input_name `token_embeddings`")?;
    refused(config(), "gain", json!(2), "unknown field `gain`")
}

#[test]
fn unsupported_modules_are_named() -> Outcome {
    let folder = Folder::new()?;
    let (transformer, pooling) = (("", "models.Transformer"), ("1_Pooling", "models.Pooling"));
    folder.modules(&[transformer, pooling, ("2_LSTM", "models.LSTM")])?;
    folder.assert_refused("sentence_transformers.models.LSTM");
    folder.modules(&[transformer])?;
    folder.assert_refused("are not supported");
    folder.modules(&[pooling, transformer])?;
    folder.assert_refused("are not supported");
    folder.modules(&[transformer, ("../1_Pooling", "models.Pooling")])?;
    folder.assert_refused("leads out of the model's folder");
    folder.write(
        "modules.json",
        json!([{"path": "", "type": "mine.Transformer"}, {"path": "1_Pooling", "type": "mine.Pooling"}]),
    )?;
    folder.assert_refused("mine.Transformer, mine.Pooling");
    folder.write("modules.json", json!({"path": ""}))?;
    folder.assert_refused("modules.json` cannot be understood");
    Ok(())
}

#[test]
fn unsupported_settings_are_named() -> Outcome {
    let folder = Folder::new()?;
    folder.write("sentence_bert_config.json", json!({"max_seq_length": "256"}))?;
    folder.assert_refused("invalid type: string");
    folder
        .write("sentence_bert_config.json", json!({"model_args": {"torch_dtype": "float16"}, "query_length": null}))?;
    folder.open()?;
    folder.write("sentence_bert_config.json", json!({"query_length": 32}))?;
    folder.assert_refused("`query_length`: 32 is not supported");
    folder.write("sentence_bert_config.json", json!({"config_args": {"num_hidden_layers": 2}}))?;
    folder.assert_refused("`config_args`");
    folder.write("sentence_bert_config.json", json!({}))?;
    folder.pooling(json!({"word_embedding_dimension": 4, "pooling_mode": "median"}))?;
    folder.assert_refused("unknown variant `median`");
    folder.pooling(json!({"word_embedding_dimension": 4, "pooling_mode_median_tokens": true}))?;
    folder.assert_refused("unknown field `pooling_mode_median_tokens`");
    folder.pooling(json!({"word_embedding_dimension": 4}))?;
    folder.write("config_sentence_transformers.json", json!({"default_prompt_name": "query"}))?;
    folder.assert_refused("`query` is not one of the prompts");
    folder.write("config_sentence_transformers.json", json!({"similarity_fn_name": "hamming"}))?;
    folder.assert_refused("hamming");
    folder.write("config_sentence_transformers.json", json!({"model_type": "Reranker"}))?;
    folder.assert_refused("`Reranker` is not supported");
    folder.write("config_sentence_transformers.json", json!({"model_type": "CrossEncoder"}))?;
    assert!(SentenceTransformer::open(folder.path())?.is_none());
    Ok(())
}

#[test]
fn sparse_and_late_interaction_models_are_recognised() -> Outcome {
    let folder = Folder::new()?;
    folder.modules(&[
        ("", "sparse_encoder.models.MLMTransformer.MLMTransformer"),
        ("1_SpladePooling", "sparse_encoder.models.SpladePooling.SpladePooling"),
    ])?;
    let pooling =
        json!({"pooling_strategy": "max", "activation_function": "log1p_relu", "word_embedding_dimension": 9});
    folder.write("1_SpladePooling/config.json", pooling)?;
    let Composition::Sparse(pooling) = folder.open()?.composition else { panic!("a SPLADE model was written") };
    assert_eq!(pooling, SpladePooling { strategy: SpladeStrategy::Max, log_twice: true });
    folder.write("1_SpladePooling/config.json", json!({"pooling_strategy": "median"}))?;
    folder.assert_refused("median");
    Ok(())
}
