//! Entry points for the fuzzers: each takes arbitrary bytes, must return, and holds what came out to its promises.

use crate::bus::Record;
use crate::bus::nats::{key_of, subject_of, understand};
use crate::config::Document;
use crate::config::sections::{AdminSection, BusSection, LogSection, NodeSection};

/// A configuration file of these bytes.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let parsed = Document::from_toml("fuzz.toml", text).and_then(|document| {
        document.parse(|root| {
            AdminSection::parse(root, 1);
            BusSection::parse(root);
            LogSection::parse(root);
            for mut service in root.tables("services") {
                service.optional::<String>("name");
            }
            for (_, mut upstream) in root.map("upstreams") {
                upstream.optional::<std::time::Duration>("timeout");
            }
            NodeSection::parse(root)
        })
    });
    match parsed {
        Ok(node) => assert!(
            crate::bus::is_name(&node.id),
            "a name that is none was let through"
        ),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty(), "refused without a reason"),
    }
}

/// A message of the bus of these bytes: the subject up to the first newline, the payload after it.
pub fn bus_record(bytes: &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (subject, payload) = bytes.split_at(end);
    let payload = payload.get(1..).unwrap_or_default();
    if let Ok(subject) = std::str::from_utf8(subject) {
        if let Some(key) = key_of(subject) {
            assert_eq!(subject_of(&key), subject, "two subjects for one key");
        }
        let _understood = understand(Some(subject), None, None, payload);
    }
    if let Ok(record) = Record::decode(payload) {
        assert!(
            record.validate().is_ok(),
            "an invalid record was let through"
        );
    }
}
