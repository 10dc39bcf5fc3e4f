//! Keys as subjects of the bucket, and what its messages say.

use super::super::key::Key;
use super::super::life::Signature;
use super::super::record::{Invalid, Record};

/// What marks a message of the bucket as a delete.
pub(super) const OPERATION: &str = "KV-Operation";
/// The life that deletes, on the message of a delete.
pub(super) const LIFE: &str = "Weir-Life";

/// What a message says: what is under the key now (none: it was deleted), and the life that wrote it, if it says.
#[derive(Debug, PartialEq)]
pub(crate) struct Understood {
    pub(crate) key: Key,
    pub(crate) record: Option<Record>,
    pub(crate) by: Option<Signature>,
}

/// What a message of the bucket says. `life` is what a header says of who deletes.
pub(crate) fn understand(
    subject: Option<&str>,
    operation: Option<&str>,
    life: Option<&str>,
    payload: &[u8],
) -> Result<Understood, Invalid> {
    let key = subject.and_then(key_of).ok_or(Invalid::Key)?;
    match operation {
        Some("DEL" | "PURGE") => {
            let id = life.and_then(|life| life.parse().ok());
            let by = id.map(|id| Signature {
                id,
                started_unix_ms: 0,
                replaces: None,
            });
            let record = None;
            Ok(Understood { key, record, by })
        }
        Some("PUT") | None => {
            let (record, by) = Record::decode_by(payload)?;
            if record.key() == key {
                let record = Some(record);
                Ok(Understood { key, record, by })
            } else {
                Err(Invalid::Key)
            }
        }
        Some(_) => Err(Invalid::Form),
    }
}

/// The key as the last part of a subject: three tokens, in which every byte but letters, digits, `-` and `_` is `=` and two hex digits.
pub(crate) fn subject_of(key: &Key) -> String {
    key.words().map(|word| encode(&word)).join(".")
}

/// Reads what [`subject_of`] writes.
pub(crate) fn key_of(subject: &str) -> Option<Key> {
    let mut tokens = subject.split('.');
    let (kind, group, member) = (tokens.next()?, tokens.next()?, tokens.next()?);
    if tokens.next().is_some() {
        return None;
    }
    let key = Key::of_words(&decode(kind)?, &decode(group)?, &decode(member)?)?;
    // One way to write a key only, or two subjects would fight over it.
    (subject_of(&key) == subject).then_some(key)
}

fn encode(word: &str) -> String {
    let mut token = String::with_capacity(word.len());
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
    token
}

fn decode(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
