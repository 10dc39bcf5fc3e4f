//! Making bytes harmless: to whoever parses the log, and to the terminal of whoever reads it.

/// For a JSON string: quotes, backslashes and control characters (C0, DEL and C1) as JSON escapes, bytes that are not UTF-8 spelled out as
/// `\xFF` (in JSON, `\\xFF`), all else as it is.
pub(super) fn json(text: &[u8], out: &mut Vec<u8>) {
    if is_plain(text) {
        return out.extend_from_slice(text);
    }
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut copied = 0;
        for (at, byte) in valid.iter().enumerate() {
            // U+0080 to U+009F are C2 80 to C2 9F.
            let c1 = *byte == 0xc2 && valid.get(at + 1).is_some_and(|next| *next < 0xa0);
            if !c1 && !matches!(byte, 0..0x20 | b'"' | b'\\' | 0x7f) {
                continue;
            }
            out.extend_from_slice(&valid[copied..at]);
            copied = at + 1;
            match byte {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0xc2 => {
                    unicode_escape(valid[at + 1], out);
                    copied = at + 2;
                }
                _ => unicode_escape(*byte, out),
            }
        }
        out.extend_from_slice(&valid[copied..]);
        for byte in chunk.invalid() {
            out.extend_from_slice(b"\\\\x");
            hex(*byte, out);
        }
    }
}

/// As nginx escapes variables: quotes, backslashes, control characters and everything beyond ASCII as `\xFF`.
pub(super) fn combined(text: &[u8], out: &mut Vec<u8>) {
    if is_plain(text) {
        return out.extend_from_slice(text);
    }
    for byte in text {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                out.extend_from_slice(b"\\x");
                hex(*byte, out);
            }
            _ => out.push(*byte),
        }
    }
}

/// Whether there is nothing to escape in either format, as in nearly all text. Looks at every byte: without an early end it is done in vectors.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| {
        plain & (0x20..0x7f).contains(byte) & (*byte != b'"') & (*byte != b'\\')
    })
}

fn unicode_escape(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u00");
    hex(byte, out);
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push(DIGITS[usize::from(byte >> 4)]);
    out.push(DIGITS[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_make_one_json_string_and_one_line(text in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let mut out = vec![b'"'];
            json(&text, &mut out);
            out.push(b'"');
            let parsed: String = serde_json::from_slice(&out).unwrap();
            if let Ok(valid) = std::str::from_utf8(&text) {
                proptest::prop_assert_eq!(parsed, valid);
            }
            let line = String::from_utf8(out).unwrap();
            proptest::prop_assert!(!line.chars().any(char::is_control));

            let mut out = Vec::new();
            combined(&text, &mut out);
            proptest::prop_assert!(out.iter().all(|byte| (32..127).contains(byte) && *byte != b'"'));
        }
    }
}
