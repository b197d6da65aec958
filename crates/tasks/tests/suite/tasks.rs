//! Every task from body to reply, on a tiny model.

use centuple_tasks::{Category, Job, Model, Problem, Request, Task, TaskError};

use crate::tiny::{self, Tiny};

/// The reply to a body, or the error's category and message.
fn ask(model: &Model, task: Task, body: &str) -> String {
    reply(model, Request::parse(task, body.as_bytes()))
}

fn reply(model: &Model, request: Result<Request, TaskError>) -> String {
    let run = |request| Job::prepare(model, request)?.run(model, &mut Tiny::new(model));
    match request.and_then(run) {
        Ok(reply) => String::from_utf8(reply.to_json()).unwrap(),
        Err(error) => format!("{:?}: {error}", error.category()),
    }
}

fn asked(model: &Model, task: Task, bodies: &[&str]) -> String {
    bodies.iter().map(|body| format!("{body}\n  {}\n", ask(model, task, body))).collect()
}

#[test]
fn sentence_embeddings() {
    let bodies = [
        r#"{"inputs": "the cat sat"}"#,
        r#"{"inputs": ["the cat sat"]}"#,
        r#"{"inputs": ["the cat sat", "", "a dog ran"], "parameters": null}"#,
        r#"{"inputs": "the cat sat", "normalize": true, "truncate": null}"#,
        r#"{"inputs": "the cat sat", "parameters": {"normalize": true, "dimensions": 2}}"#,
        r#"{"inputs": "the cat sat", "dimensions": 4}"#,
        r#"{"inputs": "the cat sat", "prompt_name": "query"}"#,
        r#"{"inputs": "the cat sat", "encoding_format": "base64"}"#,
        r#"{"inputs": ["the cat", "sat"], "encoding_format": "base64", "options": {"use_cache": false}}"#,
    ];
    insta::assert_snapshot!(asked(&tiny::embedder(false), Task::FeatureExtraction, &bodies));
}

#[test]
fn normalised_sentence_embeddings() {
    let bodies = [
        r#"{"inputs": "the cat sat"}"#,
        r#"{"inputs": "the cat sat", "normalize": true}"#,
        r#"{"inputs": "the cat sat", "normalize": false}"#,
        r#"{"inputs": "the cat sat", "dimensions": 2}"#,
        r#"{"inputs": "the cat sat", "dimensions": 2, "normalize": false}"#,
    ];
    insta::assert_snapshot!(asked(&tiny::embedder(true), Task::FeatureExtraction, &bodies));
}

#[test]
fn token_features() {
    let bodies = [
        r#"{"inputs": "cat"}"#,
        r#"{"inputs": ["cat", ""]}"#,
        r#"{"inputs": "cat", "dimensions": 1, "encoding_format": "base64"}"#,
        r#"{"inputs": "", "normalize": true, "dimensions": 2}"#,
    ];
    insta::assert_snapshot!(asked(&tiny::features(), Task::FeatureExtraction, &bodies));
}

#[test]
fn sentence_similarity() {
    let bodies = [
        r#"{"inputs": {"source_sentence": "the cat sat", "sentences": ["the cat sat", "dog", ""]}}"#,
        r#"{"inputs": {"sentences": ["a"], "source_sentence": "b"}, "parameters": {"prompt_name": "query"}}"#,
        r#"{"inputs": {"source_sentence": "the cat", "sentences": []}}"#,
        r#"{"inputs": {"source_sentence": "the cat"}}"#,
        r#"{"inputs": {"source_sentence": "the cat", "sentences": "cat"}}"#,
        r#"{"inputs": "the cat"}"#,
        r#"{"inputs": ["the cat", ["sat"]]}"#,
    ];
    insta::assert_snapshot!(asked(&tiny::embedder(false), Task::SentenceSimilarity, &bodies));
}

#[test]
fn text_classification() {
    let bodies = [
        r#"{"inputs": "i love this film"}"#,
        r#"{"inputs": ["i love this film", ""], "parameters": {"top_k": 1}}"#,
        r#"{"inputs": "i love this film", "parameters": {"top_k": null, "function_to_apply": "none"}}"#,
        r#"{"inputs": "i love this film", "parameters": {"top_k": 99, "function_to_apply": "sigmoid"}}"#,
        r#"{"inputs": {"text": "hello", "text_pair": "world"}, "parameters": {"truncation": true}}"#,
        r#"{"inputs": [{"text": "hello"}, "hello", {"text": "hello", "text_pair": null}], "parameters": {"top_k": 1}}"#,
        r#"{"inputs": "i love this film", "parameters": {"return_all_scores": true}}"#,
        r#"{"inputs": "i love this film", "parameters": {"return_all_scores": false}}"#,
        r#"{"inputs": "i love", "parameters": {"top_k": 0}}"#,
        r#"{"inputs": "i love", "parameters": {"top_k": -1}}"#,
        r#"{"inputs": "i love", "parameters": {"function_to_apply": "relu"}}"#,
        r#"{"inputs": {"text_pair": "world"}}"#,
        r#"{"inputs": [["hello", "world"]]}"#,
    ];
    insta::assert_snapshot!(asked(&tiny::classifier(Problem::SingleLabel), Task::TextClassification, &bodies));
}

#[test]
fn sparse_embeddings_and_late_interaction() {
    let bodies = [
        r#"{"inputs": "the cat sat"}"#,
        r#"{"inputs": ["the cat sat", ""], "normalize": true}"#,
        r#"{"inputs": "the cat", "dimensions": 2}"#,
        r#"{"inputs": "the cat", "encoding_format": "base64"}"#,
    ];
    insta::assert_snapshot!(asked(&tiny::sparse(), Task::FeatureExtraction, &bodies));
    insta::assert_snapshot!(asked(&tiny::late(), Task::FeatureExtraction, &bodies[..3]));
}

#[test]
fn zero_shot_classification() {
    let bodies = [
        r#"{"inputs": "i love this film", "parameters": {"candidate_labels": ["good", "bad", "not"]}}"#,
        r#"{"inputs": "i love this film", "candidate_labels": "good, bad,,not", "multi_label": true}"#,
        r#"{"inputs": ["cat"], "parameters": {"candidate_labels": ["good", "bad"]}}"#,
        r#"{"inputs": ["cat", "dog"], "parameters": {"candidate_labels": ["good"], "hypothesis_template": "it is {}"}}"#,
        r#"{"inputs": "cat", "parameters": {"candidate_labels": ["good"], "hypothesis_template": "it is"}}"#,
        r#"{"inputs": "cat", "parameters": {"candidate_labels": []}}"#,
        r#"{"inputs": "cat", "parameters": {"candidate_labels": [5]}}"#,
        r#"{"inputs": "cat"}"#,
        r#"{"inputs": "", "parameters": {"candidate_labels": ["good"]}}"#,
        r#"{"inputs": "cat", "parameters": {"candidate_labels": ["the cat sat on a mat in the sun and the dog"]}}"#,
    ];
    insta::assert_snapshot!(asked(&tiny::inference(), Task::ZeroShotClassification, &bodies));
    let many = serde_json::json!({"inputs": "cat", "candidate_labels": vec!["a"; 1001]}).to_string();
    assert!(ask(&tiny::inference(), Task::ZeroShotClassification, &many).contains("at most 1000"));
    let long = serde_json::json!({"inputs": "cat ".repeat(10_000), "candidate_labels": vec!["a"; 1000]}).to_string();
    assert!(ask(&tiny::inference(), Task::ZeroShotClassification, &long).contains("would be read 1000 times"));
}

#[test]
fn token_classification() {
    let text = "the cat sat on a mat in the sun and the dog ran in the rain , good day !";
    let of = |parameters: &str| format!(r#"{{"inputs": "{text}", "parameters": {{{parameters}}}}}"#);
    let bodies = [
        r#"{"inputs": "hello catx world"}"#.to_owned(),
        r#"{"inputs": ["hello wörld 🚀", ""], "parameters": {"ignore_labels": []}}"#.to_owned(),
        r#"{"inputs": "hello catx", "parameters": {"aggregation_strategy": "none"}}"#.to_owned(),
        r#"{"inputs": "hello catx", "parameters": {"aggregation_strategy": "first"}}"#.to_owned(),
        r#"{"inputs": "hello catx", "parameters": {"aggregation_strategy": "average"}}"#.to_owned(),
        r#"{"inputs": "hello catx", "parameters": {"aggregation_strategy": "max"}}"#.to_owned(),
        of(""),
        of(r#""stride": 4"#),
        of(r#""stride": 14"#),
        of(r#""stride": 16"#),
        of(r#""stride": 2, "aggregation_strategy": "none""#),
        of(r#""truncate": false"#),
        of(r#""aggregation_strategy": "best""#),
    ];
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    insta::assert_snapshot!(asked(&tiny::tagger(), Task::TokenClassification, &bodies));
    let long = serde_json::json!({"inputs": "cat ".repeat(100_000), "stride": 13}).to_string();
    assert!(ask(&tiny::tagger(), Task::TokenClassification, &long).contains("at most 4096 are allowed"));
}

#[test]
fn question_answering() {
    let of = |parameters: &str| {
        let context = "the cat sat on a mat in the sun and the dog ran in the rain, good day!";
        format!(
            r#"{{"inputs": {{"question": "is it good?", "context": "{context}"}}, "parameters": {{{parameters}}}}}"#
        )
    };
    let bodies = [
        r#"{"inputs": {"question": "is it?", "context": "Hello wörld, good catx"}}"#.to_owned(),
        r#"{"inputs": [{"question": "is it?", "context": "a good dog"}], "parameters": {"top_k": 2}}"#.to_owned(),
        r#"{"inputs": {"question": "is it?", "context": " "}}"#.to_owned(),
        r#"{"inputs": {"question": "", "context": "a"}}"#.to_owned(),
        r#"{"inputs": {"question": "a"}}"#.to_owned(),
        r#"{"inputs": "a"}"#.to_owned(),
        r#"{"inputs": []}"#.to_owned(),
        of(r#""doc_stride": 2"#),
        of(r#""doc_stride": 2, "top_k": 3, "handle_impossible_answer": true"#),
        of(r#""doc_stride": 2, "max_answer_len": 1, "align_to_words": false"#),
        of(r#""doc_stride": 2, "max_question_len": 1"#),
        of(""),
        of(r#""top_k": 0"#),
        of(r#""top_k": 1001"#),
        of(r#""max_answer_len": 1001"#),
        of(r#""max_answer_len": 0"#),
        of(r#""max_question_len": 0"#),
        of(r#""max_seq_len": 17"#),
        of(r#""max_seq_len": 3"#),
        of(r#""max_seq_len": 10, "doc_stride": 11"#),
    ];
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    insta::assert_snapshot!(asked(&tiny::reader(), Task::QuestionAnswering, &bodies));
}

#[test]
fn fill_mask() {
    let bodies = [
        r#"{"inputs": "the [MASK] sat"}"#,
        r#"{"inputs": "the [MASK] sat", "parameters": {"top_k": 1, "targets": ["cat", "dogs", "cat"]}}"#,
        r#"{"inputs": "the [MASK] [MASK]", "parameters": {"top_k": 2, "targets": "dog"}}"#,
        r#"{"inputs": ["a [MASK]", "[MASK]"], "parameters": {"top_k": 1}}"#,
        r#"{"inputs": ["a [MASK]"], "parameters": {"top_k": 1}}"#,
        r#"{"inputs": "the cat"}"#,
        r#"{"inputs": []}"#,
        r#"{"inputs": "[MASK]", "parameters": {"top_k": 0}}"#,
        r#"{"inputs": "[MASK]", "parameters": {"top_k": 96}}"#,
        r#"{"inputs": "[MASK]", "parameters": {"targets": [""]}}"#,
        r#"{"inputs": "[MASK] cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat"}"#,
        r#"{"inputs": "[MASK] cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat", "truncate": true, "top_k": 1}"#,
    ];
    insta::assert_snapshot!(asked(&tiny::masked(), Task::FillMask, &bodies));
}

#[test]
fn text_ranking() {
    let model = tiny::all().remove(4);
    let bodies = [
        r#"{"inputs": {"query": "the cat", "texts": ["a dog", "", "the sun"]}}"#,
        r#"{"inputs": {"source_sentence": "the cat", "documents": [{"text": "a dog"}, "sun"]}, "return_text": true}"#,
        r#"{"inputs": {"query": "the cat", "sentences": ["a dog", "sun"]}, "parameters": {"top_n": 1, "raw_scores": true}}"#,
        r#"{"inputs": {"query": "the cat", "texts": []}}"#,
        r#"{"inputs": {"query": "the cat", "texts": ["a"], "documents": ["b"]}}"#,
        r#"{"inputs": {"query": "the cat"}}"#,
        r#"{"inputs": {"query": "the cat", "texts": ["a"]}, "parameters": {"top_k": 0}}"#,
    ];
    insta::assert_snapshot!(asked(&model, Task::TextRanking, &bodies));
    assert!(ask(&tiny::features(), Task::TextRanking, bodies[0]).contains("does not do text-ranking"));
}

#[test]
fn the_problem_type_chooses_the_function() {
    let body = r#"{"inputs": "i love this film", "parameters": {"top_k": 2}}"#;
    let replies = [Problem::SingleLabel, Problem::MultiLabel, Problem::Regression]
        .map(|problem| format!("{problem:?} {}\n", ask(&tiny::classifier(problem), Task::TextClassification, body)));
    insta::assert_snapshot!(replies.concat());
}

#[test]
fn bad_bodies() {
    let deep = format!(r#"{{"inputs": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let deep_option = format!(r#"{{"options": {}, "inputs": "a"}}"#, "[".repeat(100_000));
    let bodies = [
        "",
        "{",
        "null",
        "[]",
        r#""cat""#,
        "{}",
        r#"{"inputs": null}"#,
        r#"{"inputs": 5}"#,
        r#"{"inputs": []}"#,
        r#"{"inputs": ["a", 5]}"#,
        r#"{"inputs": [["a"]]}"#,
        r#"{"inputs": "a", "inputs": "b"}"#,
        r#"{"inputs": "a"} x"#,
        r#"{"inputs": "a", "normalise": true}"#,
        r#"{"inputs": "a", "parameters": {"topk": 3}}"#,
        r#"{"inputs": "a", "parameters": {"dimensions": "3"}}"#,
        r#"{"inputs": "a", "parameters": {"dimensions": 1e99}}"#,
        r#"{"inputs": "a", "parameters": {"normalize": true}, "dimensions": 2}"#,
        r#"{"inputs": "a", "parameters": []}"#,
        r#"{"inputs": "a", "parameters": "no"}"#,
        r#"{"inputs": "a", "dimensions": 0}"#,
        r#"{"inputs": "a", "dimensions": 5}"#,
        r#"{"inputs": "a", "prompt_name": "poem"}"#,
        r#"{"inputs": "a", "encoding_format": "hex"}"#,
        r#"{"inputs": "a", "truncation_direction": "up"}"#,
        r#"{"inputs": "the cat sat on the mat in the sun and the dog ran in the rain", "truncate": false}"#,
        r#"{"inputs": "\ud800"}"#,
    ];
    let model = tiny::embedder(false);
    insta::assert_snapshot!(asked(&model, Task::FeatureExtraction, &bodies));
    for body in [deep, deep_option] {
        let answer = ask(&model, Task::FeatureExtraction, &body);
        assert!(answer.starts_with("Malformed") || answer.starts_with("Invalid"), "{answer}");
    }
    let broken = Request::parse(Task::FeatureExtraction, b"{\"inputs\": \"\xff\"}").unwrap_err();
    assert_eq!(broken.category(), Category::Malformed);
}

#[test]
fn a_long_text_is_cut_where_it_is_said() {
    let model = tiny::features();
    let words: Vec<_> = "the cat sat on a mat in the sun and the dog ran in the rain , good day !".split(' ').collect();
    let rows = |body: &str| {
        let answer = ask(&model, Task::FeatureExtraction, body);
        serde_json::from_str::<Vec<Vec<[f32; 4]>>>(&answer).unwrap().remove(0)
    };
    let text = words.join(" ");
    let right = rows(&format!(r#"{{"inputs": "{text}"}}"#));
    let left = rows(&format!(r#"{{"inputs": "{text}", "truncation_direction": "left"}}"#));
    assert_eq!(right, rows(&format!(r#"{{"inputs": "{}"}}"#, words[..14].join(" "))));
    assert_eq!(left, rows(&format!(r#"{{"inputs": "{}"}}"#, words[words.len() - 14..].join(" "))));
    assert_eq!((right.len(), left.len()), (16, 16));
}

#[test]
fn a_prompt_may_be_left_out_of_pooling() {
    let mut model = tiny::embedder(false);
    let pooled = |model: &Model| {
        let body = br#"{"inputs": "cat", "prompt_name": "query"}"#;
        let request = Request::parse(Task::FeatureExtraction, body).unwrap();
        Job::prepare(model, request).unwrap().sequences.remove(0)
    };
    let whole = pooled(&model);
    assert_eq!((whole.len(), whole.pool_from), (5, 0));
    let centuple_tasks::Head::SentenceEmbedding(embedding) = &mut model.card.head else { unreachable!() };
    embedding.include_prompt = false;
    let part = pooled(&model);
    assert_eq!((part.ids, part.pool_from), (whole.ids, 3));
}

#[test]
fn the_default_prompt_is_used_where_none_is_named() {
    let mut model = tiny::embedder(false);
    let named = ask(&model, Task::FeatureExtraction, r#"{"inputs": "cat", "prompt_name": "passage"}"#);
    model.card.default_prompt = Some("passage".into());
    assert_eq!(ask(&model, Task::FeatureExtraction, r#"{"inputs": "cat"}"#), named);
}

#[test]
fn a_body_without_task_goes_to_the_main_one_or_by_its_form() {
    let embedder = tiny::embedder(false);
    let parse = |model: &Model, body: &str| reply(model, Request::parse_for(model, body.as_bytes()));
    let answers = [
        parse(&embedder, r#"{"inputs": "cat"}"#),
        parse(&embedder, r#"{"inputs": {"source_sentence": "cat", "sentences": ["dog"]}}"#),
        parse(&embedder, r#"{"inputs": {"source_sentence": "cat"}}"#),
        parse(&embedder, r#"{"inputs": 5}"#),
        parse(&tiny::classifier(Problem::SingleLabel), r#"{"inputs": "cat", "top_k": 1}"#),
        parse(&tiny::features(), r#"{"inputs": {"source_sentence": "cat", "sentences": ["dog"]}}"#),
        ask(&tiny::features(), Task::TextClassification, r#"{"inputs": "cat"}"#),
        parse(&tiny::inference(), r#"{"inputs": "cat", "parameters": {"candidate_labels": "a"}}"#),
        parse(&tiny::inference(), r#"{"inputs": "cat", "parameters": {"candidate_label": "a"}}"#),
        parse(&tiny::all()[4], r#"{"inputs": {"query": "cat", "texts": ["a"]}}"#),
        parse(&tiny::all()[4], r#"{"inputs": {"text": "cat"}}"#),
    ];
    insta::assert_snapshot!(answers.join("\n"));
}

#[test]
fn ten_thousand_inputs_are_split_into_batches() {
    let model = tiny::embedder(false);
    let body = serde_json::json!({"inputs": vec!["the cat sat"; 10_000]}).to_string();
    let answer = ask(&model, Task::FeatureExtraction, &body);
    let vectors: Vec<[f32; 4]> = serde_json::from_str(&answer).unwrap();
    assert_eq!(vectors.len(), 10_000);
    assert!(vectors.iter().all(|vector| *vector == vectors[0]));
}

#[test]
fn numbers_come_back_as_the_same_f32() {
    let model = tiny::embedder(true);
    let answer = ask(&model, Task::FeatureExtraction, r#"{"inputs": "the cat sat"}"#);
    let read: Vec<f32> = serde_json::from_str(&answer).unwrap();
    let again = serde_json::to_string(&read).unwrap();
    assert_eq!(answer, again);
}

#[test]
fn an_output_that_is_no_number_is_an_error() {
    let model = tiny::classifier(Problem::SingleLabel);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut engine = Tiny::with(&model, move |_, outputs| {
            outputs[1].data[2] = value;
            Ok(())
        });
        let request = Request::parse(Task::TextClassification, br#"{"inputs": ["a", "b"]}"#).unwrap();
        let error = Job::prepare(&model, request).unwrap().run(&model, &mut engine).unwrap_err();
        assert!(matches!(error, TaskError::NotFinite { input: 1 }), "{error}");
        assert_eq!(error.category(), Category::Engine);
    }
}

#[test]
fn an_engine_that_breaks_its_contract_is_an_error() {
    let model = tiny::embedder(false);
    let spoil: [fn(&mut Vec<centuple_tasks::Output>); 3] =
        [|outputs| outputs.truncate(1), |outputs| outputs[0].columns = 3, |outputs| outputs[0].data.truncate(3)];
    for spoil in spoil {
        let mut engine = Tiny::with(&model, move |_, outputs| {
            spoil(outputs);
            Ok(())
        });
        let request = Request::parse(Task::FeatureExtraction, br#"{"inputs": ["a", "b"]}"#).unwrap();
        let error = Job::prepare(&model, request).unwrap().run(&model, &mut engine).unwrap_err();
        assert_eq!(error.category(), Category::Engine, "{error}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for task in Task::ALL {
                let _ = Request::parse(task, &bytes);
            }
        }

        #[test]
        fn no_json_panics(inputs in "[\\[\\]{},:\"a0-9nul.eE+-]{0,40}", name in "[a-z_]{0,12}") {
            let body = format!("{{\"inputs\": {inputs}, \"{name}\": {inputs}}}");
            for task in Task::ALL {
                let _ = Request::parse(task, body.as_bytes());
            }
        }

        #[test]
        fn every_model_answers_any_text_or_refuses_it(
            text in "(\\[MASK\\]|\\PC){0,40}", other in "\\PC{0,40}", number in 0usize..40, index in 0usize..6,
            strategy in 0usize..5,
        ) {
            let mut bodies = vec![
                serde_json::json!({"inputs": text}),
                serde_json::json!({"inputs": text, "candidate_labels": [other, "b"], "hypothesis_template": "{}"}),
                serde_json::json!({"inputs": {"question": other, "context": text}, "doc_stride": number % 6, "top_k": number}),
                serde_json::json!({"inputs": text, "targets": [other, "cat"], "truncate": true}),
                serde_json::json!({"inputs": {"query": text, "texts": [other]}}),
            ];
            let strategy = ["none", "simple", "first", "average", "max"][strategy];
            bodies.push(serde_json::json!({"inputs": text, "aggregation_strategy": strategy, "stride": number % 15}));
            let body = bodies.swap_remove(index).to_string();
            for model in tiny::all() {
                for task in model.card.tasks() {
                    let answer = ask(&model, *task, &body);
                    let refused = ["Invalid: ", "Tokenization: ", "Empty: "].iter().any(|kind| answer.starts_with(kind));
                    prop_assert!(refused || serde_json::from_str::<serde_json::Value>(&answer).is_ok(), "{}", answer);
                }
            }
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,300}") {
            let model = tiny::embedder(true);
            let body = serde_json::json!({"inputs": text}).to_string();
            let answer = ask(&model, Task::FeatureExtraction, &body);
            prop_assert_eq!(serde_json::from_str::<Vec<f32>>(&answer).unwrap().len(), tiny::DIMENSION);
        }
    }
}
