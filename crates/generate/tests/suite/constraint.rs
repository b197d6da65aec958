//! Answers that are kept to a schema or an expression.

use centuple_generate::{
    Constraint, Context, Finish, Grammars, Logits, ParameterError, Parameters, Place, Processors, Request, SampleError,
    Sampler, Scheduler, StepLimits, uniform,
};
use serde_json::{Value, json};

use crate::table::{TableEngine, VOCABULARY};

/// Every ASCII character, pieces of JSON, halves of "é", and the end as the last token.
fn tokens() -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..128_u8).map(|byte| vec![byte]).collect();
    tokens.extend(
        ["{\"", "\":", "\", \"", "true", "name", "age", "12", ": {", "}}", "é", "\\u00"].map(|text| text.into()),
    );
    tokens.extend([vec![0xC3], vec![0xA9], Vec::new(), Vec::new()]);
    tokens
}

fn grammars() -> Grammars {
    let tokens = tokens();
    let eos = tokens.len() as u32 - 1;
    Grammars::new(tokens, &[eos]).expect("the tokens are valid")
}

/// An answer out of random logits, in which short answers are likely.
fn answer(constraint: &Constraint, seed: u64) -> Result<String, SampleError> {
    let tokens = tokens();
    let eos = tokens.len() as u32 - 1;
    let parameters = Parameters { do_sample: true, eos_token_id: vec![eos], top_k: 20, ..Parameters::default() };
    let context = Context { prompt: 1, source: &[1], longest: 2000, vocabulary: tokens.len() };
    let processors = Processors::new(&parameters, context).expect("the tokens exist");
    let sampler = Sampler::new(&parameters, seed);
    let mut constraint = constraint.clone();
    let mut bytes = Vec::new();
    for position in 0..1000 {
        let logit = |token: usize| (uniform(seed, 1, position, token as u32) * 8.0) as f32;
        let closes = |token: &[u8]| matches!(token, [] | [b'"' | b'}' | b']' | b','] | b"}}");
        let mut row: Vec<f32> = tokens
            .iter()
            .enumerate()
            .map(|(token, bytes)| logit(token) + if closes(bytes) { 6.0 } else { 0.0 })
            .collect();
        let place = Place { ids: &[1], sequence: 0, position };
        let token = sampler.sample(&processors, Some(&mut constraint), place, &mut row, None)?.token;
        if token == eos {
            return Ok(String::from_utf8(bytes).expect("whole characters"));
        }
        bytes.extend(&tokens[token as usize]);
    }
    Err(SampleError::Constraint("it doesn't end".to_owned()))
}

#[test]
fn answers_are_json_of_the_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["new", "old"]}, "maxItems": 3},
            "inner": {"$ref": "#/$defs/inner"},
        },
        "required": ["name", "age", "inner"],
        "additionalProperties": false,
        "$defs": {"inner": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}},
    });
    let constraint = grammars().json_schema(schema).expect("the schema is supported");
    for seed in 0..40 {
        let text = answer(&constraint, seed).expect("an answer");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(value["name"].as_str().is_some_and(|name| name.chars().count() <= 12), "{text}");
        assert!(value["age"].as_u64().is_some_and(|age| age <= 150), "{text}");
        assert!(value["inner"]["ok"].is_boolean(), "{text}");
        assert!(value.get("tags").is_none_or(|tags| tags.as_array().is_some_and(|tags| tags.len() <= 3)), "{text}");
    }
}

#[test]
fn answers_match_the_expression() {
    let constraint = grammars().regex("[0-9]{3}-(é|true)+x?").expect("the expression is supported");
    for seed in 0..40 {
        let text = answer(&constraint, seed).expect("an answer");
        let (digits, rest) = text.split_at(3);
        assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
        let rest = rest.strip_prefix('-').unwrap_or_default();
        let words = rest.strip_suffix('x').unwrap_or(rest);
        assert!(!words.is_empty() && words.replace('é', "").replace("true", "").is_empty(), "{text}");
    }
}

#[test]
fn what_is_no_grammar_is_refused() {
    let grammars = grammars();
    let reason = |outcome: Result<Constraint, ParameterError>| outcome.expect_err("it is no grammar").to_string();
    assert!(reason(grammars.regex("(")).starts_with("the regular expression can't be used: "));
    assert!(reason(grammars.json_schema(json!({"type": "nonsense"}))).starts_with("the JSON schema can't be used: "));
    assert!(reason(grammars.json_schema(json!({"$ref": "#/nowhere"}))).starts_with("the JSON schema can't be used: "));
    assert!(Grammars::new(tokens(), &[]).is_err());
    assert!(Grammars::new(tokens(), &[9999]).is_err());
    assert!(Grammars::from_tokenizer_json(&json!({}), 10, &[1]).is_err());
    assert!(Grammars::from_tokenizer_json(&json!([1]), 10, &[1]).is_err());
}

#[test]
fn tokenizer_files_say_their_bytes() {
    let vocabulary = json!({"Ġ": 0, "Ã": 1, "©": 2, "a": 3, "Ġa": 4, "Ċ": 5});
    let tokenizer = json!({
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        "added_tokens": [{"id": 6, "content": "</s>", "special": true}],
    });
    let grammars = Grammars::from_tokenizer_json(&tokenizer, 8, &[6]).expect("a tokenizer of bytes");
    let mut constraint = grammars.regex(" é").expect("an expression");
    let (parameters, context) = (Parameters::default(), Context { prompt: 1, source: &[1], longest: 9, vocabulary: 8 });
    let processors = Processors::new(&parameters, context).expect("valid");
    let sampler = Sampler::new(&parameters, 0);
    let mut next = |position| {
        let place = Place { ids: &[1], sequence: 0, position };
        sampler.sample(&processors, Some(&mut constraint), place, &mut [0.0; 8], None).expect("a token").token
    };
    assert_eq!([0, 1, 2, 3].map(&mut next), [0, 1, 2, 6]);
}

/// Through the scheduler: with guesses, several answers, and pages that are lost on the way.
#[test]
fn scheduled_answers_are_kept_to_it_too() {
    let mut tokens: Vec<Vec<u8>> = (0..VOCABULARY as u8).map(|token| vec![b'a' + token % 26]).collect();
    tokens[0].clear();
    let grammars = Grammars::new(tokens.clone(), &[0]).expect("valid tokens");
    let limits = StepLimits {
        page_tokens: 4,
        pages: 20,
        positions: 64,
        source_positions: 0,
        tokens_per_step: 16,
        sequences_per_step: 8,
        vocabulary: VOCABULARY,
    };
    let mut engine = TableEngine::new(limits, 1);
    let mut scheduler = Scheduler::new(limits);
    let base = Parameters { eos_token_id: vec![0], max_new_tokens: Some(20), ..Parameters::default() };
    let guessed = Parameters { prompt_lookup_num_tokens: Some(4), ..base.clone() };
    let several = Parameters { do_sample: true, num_return_sequences: 3, ..base.clone() };
    let constraint = grammars.regex("(abc){2,4}").expect("an expression");
    for parameters in [guessed, several, base.clone()] {
        let constraint = Some(constraint.clone());
        let request = Request {
            prompt: vec![1, 2, 3],
            source: None,
            parameters,
            seed: 0,
            client: None,
            decoder: None,
            constraint,
        };
        scheduler.submit(request.clone()).expect("it fits");
        let beams = Parameters { num_beams: 2, ..base.clone() };
        assert!(scheduler.submit(Request { parameters: beams, ..request }).is_err());
    }
    let mut answers = std::collections::BTreeMap::<_, Vec<u8>>::new();
    let mut finished = 0;
    while let Some(updates) = scheduler.step(&mut engine, &mut Logits::default()) {
        for update in updates {
            let answer = answers.entry((update.request, update.sequence)).or_default();
            answer.extend(update.tokens.iter().flat_map(|sampled| &tokens[sampled.token as usize]));
            finished += usize::from(update.finish.is_some());
            assert!(matches!(update.finish, None | Some(Finish::EndOfText(0))), "{update:?}");
        }
    }
    assert_eq!((answers.len(), finished), (5, 5));
    for answer in answers.values() {
        let text = String::from_utf8_lossy(answer);
        assert!((6..=12).contains(&text.len()) && text.replace("abc", "").is_empty(), "{text}");
    }
}
