//! `diff --folded` of two folded texts. In: files. Out: what difffolded.pl writes of them, sorted.
//! Never: a stack changed on the way, but for hexadecimal numbers that are to be stripped.

use super::diff::DiffArgs;
use super::output::{Output, usage};
use super::{COMPLETE, NOTHING};
use anyhow::Context as _;
use model::format::compat::difference::{DifferenceOptions, folded_difference};
use model::format::import::{Format, detect_text};
use std::io::Read as _;
use std::path::Path;

/// Bytes that a format is known by.
const HEAD_BYTES: usize = 64 << 10;

/// Writes the difference when both sides are folded text; none when one is something else.
pub fn of_texts(args: &DiffArgs, output: &Output) -> anyhow::Result<Option<u8>> {
    let (Some(left), Some(right)) = (text(&args.left)?, text(&args.right)?) else {
        if args.normalize || args.strip_hex {
            return Err(usage("-n and -s are for two files of folded text"));
        }
        return Ok(None);
    };
    let options = DifferenceOptions {
        normalize: args.normalize,
        strip_hex: args.strip_hex,
    };
    let found = folded_difference(&left, &right, options);
    let text = String::from_utf8_lossy(&found.text);
    output.data_to(args.out.as_deref(), &text)?;
    if found.foreign > 0 {
        output.talk(&format!("{} lines were no stacks\n", found.foreign));
    }
    let nothing = found.totals.0 <= 0.0 || found.totals.1 <= 0.0;
    Ok(Some(if nothing { NOTHING } else { COMPLETE }))
}

/// The bytes of a file of folded text; none of anything else. An empty file is folded text. Stdin
/// would be gone for others once it was read, so it is left to them.
fn text(word: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let path = Path::new(word);
    if !path.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let mut file = std::fs::File::open(path).with_context(|| format!("failed to open {word}"))?;
    file.read_to_end(&mut bytes)
        .with_context(|| format!("failed to read {word}"))?;
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    let folded = bytes.is_empty() || detect_text(head).is_ok_and(|d| d.format == Format::Folded);
    Ok(folded.then_some(bytes))
}
