//! What a folder's tokenizer must hold to, if it can be opened.

use centuple_text::{Text, TextOptions, Tokenizer, Truncation, WindowOptions, max_tokens};

use crate::Folder;

const TEXTS: [&str; 4] =
    ["", "Hello world! 3.14", "今天 😀 \u{0}\u{301}é [MASK]", "a a a a a a a a a a a a a a a a a a"];

/// Opens the folder's tokenizer and encodes texts with it; the one or the other may be refused.
pub fn tokenise(folder: &Folder) {
    let Ok(max_tokens) = max_tokens(folder.path(), 16, None) else { return };
    assert!(max_tokens <= 16);
    let options = TextOptions { cache_bytes: 0, ..TextOptions::new(max_tokens) };
    let Ok(tokenizer) = Tokenizer::open(folder.path(), &options) else { return };
    for text in TEXTS {
        for truncation in [Truncation::Right, Truncation::Left, Truncation::Refuse] {
            for text in [Text::Single(text), Text::Pair(text, "world")] {
                let Ok(encoding) = tokenizer.encode(text, truncation) else { continue };
                assert!((1..=max_tokens).contains(&encoding.ids.len()));
                assert_eq!(encoding.ids.len(), encoding.type_ids.len());
                let _ = tokenizer.decode(&encoding.ids, true);
            }
        }
        let _ = tokenizer.encode_prompted("Hello ", text, Truncation::Right);
        let Ok(windows) = tokenizer.windows(Text::Single(text), &WindowOptions::new(max_tokens, 1)) else { continue };
        for window in windows {
            assert!((1..=max_tokens).contains(&window.encoding.ids.len()));
            assert_eq!(window.encoding.ids.len(), window.origins.len());
        }
    }
}
