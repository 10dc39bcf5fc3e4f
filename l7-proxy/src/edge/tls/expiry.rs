//! When to say that a certificate expires. Pure: the caller brings the time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Served;

/// A certificate that will expire soon is spoken of once a day, one that has expired once an hour.
const SOON_EVERY: Duration = Duration::from_secs(24 * 3600);
const EXPIRED_EVERY: Duration = Duration::from_secs(3600);

/// Follows the certificates that are served.
#[derive(Debug)]
pub struct Expiry {
    served: Arc<[Served]>,
    /// What was last said of each, and when.
    said: Vec<Option<(State, SystemTime)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Soon,
    Expired,
}

impl Expiry {
    /// Follows certificates of which nothing was said yet.
    pub fn new(served: Arc<[Served]>) -> Expiry {
        Expiry {
            said: vec![None; served.len()],
            served,
        }
    }

    /// Which certificates these are.
    pub fn served(&self) -> &Arc<[Served]> {
        &self.served
    }

    /// Those to speak of now, because they have come near their end, or it is time to say so again.
    pub fn due(&mut self, now: SystemTime) -> Vec<&Served> {
        let mut due = Vec::new();
        for (served, said) in self.served.iter().zip(&mut self.said) {
            let leaf = served.chain.leaf();
            let state = match leaf.time_left(now) {
                None => State::Expired,
                Some(_) if leaf.expires_soon(now) => State::Soon,
                Some(_) => {
                    *said = None;
                    continue;
                }
            };
            let every = match state {
                State::Soon => SOON_EVERY,
                State::Expired => EXPIRED_EVERY,
            };
            // A clock that was set back makes the last time lie ahead: then it is said again, once.
            let rests = |at| now.duration_since(at).is_ok_and(|since| since < every);
            if said.is_none_or(|(last, at)| last != state || !rests(at)) {
                *said = Some((state, now));
                due.push(served);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rustls::crypto::aws_lc_rs::sign::any_supported_type;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::CertifiedKey;
    use shared::config::Document;

    use super::*;
    use crate::config::{Certificate, CertificatePlaces};

    const DAY: u64 = 86_400;

    /// A certificate for a hundred days from 1 January 2026.
    fn served() -> Served {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 11);
        let pair = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&pair).unwrap().pem();
        let key = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        let key = CertifiedKey::new(Vec::new(), any_supported_type(&key).unwrap());
        let document = Document::from_toml("l7.toml", "").unwrap();
        let place = document.root().place("certificate");
        Served {
            settings: Certificate {
                names: Vec::new(),
                certificate: "a.pem".into(),
                key: "a.key".into(),
                default: false,
                places: CertificatePlaces {
                    certificate: place.clone(),
                    key: place.clone(),
                    names: place,
                },
            },
            chain: shared::certificate::Chain::from_pem(pem.as_bytes()).unwrap(),
            key: Arc::new(key),
        }
    }

    #[test]
    fn an_end_is_spoken_of_daily_from_two_weeks_before_and_hourly_once_it_is_there() {
        let start = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let mut expiry = Expiry::new(vec![served()].into());
        let mut hours = Vec::new();
        for hour in 0..(102 * 24) {
            let now = start + Duration::from_secs(hour * 3600 + 1);
            if !expiry.due(now).is_empty() {
                hours.push(hour);
            }
        }
        let last = 100 * 24;
        let mut expected: Vec<u64> = (86..100).map(|day| day * 24).collect();
        expected.extend(last..last + 48);
        assert_eq!(hours, expected);
        // A clock set back by an hour: once more, not for an hour of looks.
        let back = start + Duration::from_secs(101 * DAY);
        assert_eq!(expiry.due(back).len(), 1);
        assert_eq!(expiry.due(back + Duration::from_secs(60)).len(), 0);
    }
}
