//! Perl's printf with a format and no arguments.
//!
//! In: the format. Out: what is printed, and how many warnings come with it. Never: memory that a
//! width decides.

/// Largest width and precision that are imitated; a directive with more is left as it stands.
const WIDTH_MAX: usize = 65_535;

/// Prints `format`. Out: how many warnings Perl gives.
pub(super) fn print(format: &[u8], out: &mut Vec<u8>) -> u64 {
    let mut warnings = 0;
    let mut rest = format;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let (len, warned) = directive(&rest[at + 1..], out);
        warnings += u64::from(warned);
        rest = &rest[at + 1 + len..];
    }
    out.extend_from_slice(rest);
    warnings
}

/// What stands between `%` and the letter.
#[derive(Clone, Copy, Debug, Default)]
struct Spec {
    plus: Option<u8>,
    left: bool,
    fill: bool,
    alternate: bool,
    vector: bool,
    width: usize,
    precision: Option<usize>,
}

/// The bytes of one directive, after its `%`.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// A number that does not begin with 0.
    fn number(&mut self) -> usize {
        let mut number = 0_usize;
        if self.peek() != Some(b'0') {
            while let Some(digit @ b'0'..=b'9') = self.peek() {
                number = number
                    .saturating_mul(10)
                    .saturating_add(usize::from(digit - b'0'));
                self.at += 1;
            }
        }
        number
    }

    /// `*` and `*2$`: taken from an argument that is not there.
    fn asterisk(&mut self) -> bool {
        if !self.skip(b'*') {
            return false;
        }
        let before = self.at;
        if self.number() == 0 || !self.skip(b'$') {
            self.at = before;
        }
        true
    }
}

/// Prints one directive. Out: its length, and whether Perl warns of it.
fn directive(text: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
    if text.first() == Some(&b'%') {
        out.push(b'%');
        return (1, false);
    }
    let mut cursor = Cursor { text, at: 0 };
    let spec = spec(&mut cursor);
    let letter = cursor.peek();
    let len = (cursor.at + 1).min(text.len());
    let too_wide = spec.width.max(spec.precision.unwrap_or(0)) > WIDTH_MAX;
    let body = match letter {
        Some(letter) if !too_wide => body(letter, &spec),
        _ => None,
    };
    match body {
        Some(body) => {
            lay_out(&spec, &body, out);
            (len, letter != Some(b'%'))
        }
        None => {
            out.push(b'%');
            out.extend_from_slice(&text[..len]);
            (len, true)
        }
    }
}

fn spec(cursor: &mut Cursor<'_>) -> Spec {
    let mut spec = Spec::default();
    let first = cursor.number();
    if first > 0 && !cursor.skip(b'$') {
        spec.width = first;
    } else {
        while let Some(flag @ (b' ' | b'+' | b'-' | b'0' | b'#')) = cursor.peek() {
            match flag {
                b' ' => spec.plus = spec.plus.or(Some(b' ')),
                b'+' => spec.plus = Some(b'+'),
                b'-' => spec.left = true,
                b'0' => spec.fill = true,
                _ => spec.alternate = true,
            }
            cursor.at += 1;
        }
        let mut taken = cursor.asterisk();
        if cursor.skip(b'v') {
            spec.vector = true;
            taken = cursor.asterisk();
            if !taken && cursor.skip(b'0') {
                spec.fill = true;
            }
        }
        if !taken {
            spec.width = cursor.number();
        }
    }
    if cursor.skip(b'.') {
        if !cursor.asterisk() {
            while cursor.skip(b'0') {}
            spec.precision = Some(cursor.number());
        } else {
            spec.precision = Some(0);
        }
    }
    match cursor.peek() {
        Some(b'h') => {
            cursor.at += 1;
            cursor.skip(b'h');
        }
        Some(b'l') => {
            cursor.at += 1;
            cursor.skip(b'l');
        }
        Some(b'q' | b'L' | b'V' | b'z' | b't' | b'j') => cursor.at += 1,
        _ => {}
    }
    spec
}

/// Sign, zeros and digits of a value that is printed; what is missing is an empty text, or zero.
struct Body {
    sign: Option<u8>,
    zeros: usize,
    text: Vec<u8>,
    fill: bool,
}

fn body(letter: u8, spec: &Spec) -> Option<Body> {
    let plain = |text: &[u8], sign: Option<u8>| {
        Some(Body {
            sign,
            zeros: 0,
            text: text.to_vec(),
            fill: spec.fill,
        })
    };
    let whole = matches!(
        letter,
        b'd' | b'i' | b'D' | b'u' | b'U' | b'o' | b'O' | b'x' | b'X' | b'b' | b'B'
    );
    if spec.vector {
        return if whole {
            Some(Body {
                sign: None,
                zeros: 0,
                text: Vec::new(),
                fill: false,
            })
        } else {
            None
        };
    }
    let point = |digits: usize| {
        let mut text = b"0".to_vec();
        if digits > 0 || spec.alternate {
            text.push(b'.');
        }
        text.resize(text.len() + digits, b'0');
        text
    };
    match letter {
        b'%' => plain(b"%", None),
        b's' => plain(b"", None),
        b'c' => plain(b"\0", None),
        _ if whole => {
            let signed = matches!(letter, b'd' | b'i' | b'D');
            let octal = matches!(letter, b'o' | b'O') && spec.alternate;
            let nothing = spec.precision == Some(0) && !octal;
            Some(Body {
                sign: spec.plus.filter(|_| signed),
                zeros: spec.precision.unwrap_or(0).saturating_sub(1),
                text: if nothing { Vec::new() } else { b"0".to_vec() },
                fill: spec.fill && spec.precision.is_none(),
            })
        }
        b'f' | b'F' => plain(&point(spec.precision.unwrap_or(6)), spec.plus),
        b'e' | b'E' => {
            let mut text = point(spec.precision.unwrap_or(6));
            text.extend_from_slice(&[letter, b'+', b'0', b'0']);
            plain(&text, spec.plus)
        }
        b'g' | b'G' if spec.alternate => {
            plain(&point(spec.precision.unwrap_or(6).max(1) - 1), spec.plus)
        }
        b'g' | b'G' => plain(b"0", spec.plus),
        b'a' | b'A' => {
            let mut text = vec![b'0', letter + (b'x' - b'a')];
            text.extend_from_slice(&point(spec.precision.unwrap_or(0)));
            text.extend_from_slice(&[letter + (b'p' - b'a'), b'+', b'0']);
            plain(&text, spec.plus)
        }
        _ => None,
    }
}

fn lay_out(spec: &Spec, body: &Body, out: &mut Vec<u8>) {
    if spec.vector {
        return; // each number of it is laid out, and there is none
    }
    let have = usize::from(body.sign.is_some()) + body.zeros + body.text.len();
    let gap = spec.width.saturating_sub(have);
    let fill = body.fill && !spec.left;
    if fill {
        out.extend(body.sign);
    }
    if !spec.left {
        let end = out.len() + gap;
        out.resize(end, if fill { b'0' } else { b' ' });
    }
    if !fill {
        out.extend(body.sign);
    }
    out.resize(out.len() + body.zeros, b'0');
    out.extend_from_slice(&body.text);
    if spec.left {
        out.resize(out.len() + gap, b' ');
    }
}
