//! Lines as the script's patterns match them.
//!
//! In: a line without its end. Out: its parts. Never: backtracking: what each pattern can match is
//! worked out beforehand, so that the time is linear.

/// Whether `\s` matches, for bytes.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn run(text: &[u8], from: usize, of: impl Fn(u8) -> bool) -> usize {
    let rest = &text[from..];
    from + rest.iter().position(|b| !of(*b)).unwrap_or(rest.len())
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// Comm, first number and second number of a header: what `^(\S.+?)\s+(\d+)\/*(\d+)*\s+` matches.
/// The comm is the shortest of two bytes or more that a number follows. Empty where there is no
/// second number.
pub(super) fn owner_of(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    if line.first().is_none_or(|b| is_space(*b)) {
        return None;
    }
    let mut at = 2;
    while at < line.len() {
        if !is_space(line[at]) {
            at += 1;
            continue;
        }
        // Whether it matches depends on where the blanks end, not on where they are entered.
        let first = run(line, at, is_space);
        let first_end = run(line, first, is_digit);
        let second = run(line, first_end, |b| b == b'/');
        let second_end = run(line, second, is_digit);
        let ended = line.get(second_end).is_some_and(|b| is_space(*b));
        if first_end > first && ended {
            return Some((
                &line[..at],
                &line[first..first_end],
                &line[second..second_end],
            ));
        }
        at = first;
    }
    None
}

/// Period and event of a header: what `:\s*(\d+)*\s+(\S+):\s*$` matches. The period is empty where
/// it is not printed.
pub(super) fn event_of(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let trimmed = trim_end(line);
    let body = trimmed.strip_suffix(b":")?;
    let start = body.iter().rposition(|b| is_space(*b))? + 1;
    let event = &body[start..];
    if event.is_empty() {
        return None;
    }
    let before = trim_end(&body[..start]);
    let digits = before.iter().rev().take_while(|b| is_digit(**b)).count();
    let (left, period) = before.split_at(before.len() - digits);
    trim_end(left).ends_with(b":").then_some((period, event))
}

fn trim_end(text: &[u8]) -> &[u8] {
    let len = text
        .iter()
        .rposition(|b| !is_space(*b))
        .map_or(0, |at| at + 1);
    &text[..len]
}

/// Address, name and module of a frame: what `^\s*(\w+)\s*(.+) \((.*)\)` matches. The module begins
/// at the last ` (` that a `)` follows and ends at the last `)`. Where nothing would be left for
/// the name, it takes a blank, or even the address's last letter.
pub(super) fn frame_of(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let close = memchr::memrchr(b')', line)?;
    let open = memchr::memmem::rfind(&line[..close], b" (")?;
    let start = run(line, 0, is_space);
    let end = run(line, start, |b| b.is_ascii_alphanumeric() || b == b'_');
    let name = run(line, end, is_space).min(open.checked_sub(1)?);
    if name <= start || end == start {
        return None;
    }
    Some((
        &line[start..end.min(name)],
        &line[name..open],
        &line[open + 2..close],
    ))
}
