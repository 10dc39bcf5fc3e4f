//! `Max-Forwards`, by which TRACE and OPTIONS are answered by a proxy on the way (RFC 9110 section 7.6.2).

use http::header::{HeaderValue, MAX_FORWARDS};
use http::{HeaderMap, Method};

use crate::observe::reason::Reason;

/// Counts this hop in the requests that want it counted.
///
/// # Errors
/// When the request goes no further: [`Reason::MaxForwards`] for OPTIONS, [`Reason::MethodRefused`] for TRACE, which would show a client what others
/// on the way wrote into its request. [`Reason::HeaderInvalid`] when it doesn't say how far it goes.
pub(crate) fn count_hop(method: &Method, headers: &mut HeaderMap) -> Result<(), Reason> {
    if !matches!(*method, Method::OPTIONS | Method::TRACE) {
        return Ok(());
    }
    let mut values = headers.get_all(MAX_FORWARDS).iter();
    let Some(value) = values.next() else {
        return Ok(());
    };
    let digits = value.as_bytes();
    if values.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Reason::HeaderInvalid);
    }
    // More than fits is as good as the most that does.
    let left = value.to_str().ok().and_then(|text| text.parse().ok());
    match left.unwrap_or(u32::MAX) {
        0 if *method == Method::OPTIONS => Err(Reason::MaxForwards),
        0 => Err(Reason::MethodRefused),
        left => {
            headers.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_counted_for_those_that_ask() {
        for (method, sent, left) in [
            ("OPTIONS", "5", Ok("4")),
            ("TRACE", "1", Ok("0")),
            ("OPTIONS", "0", Err(Reason::MaxForwards)),
            ("TRACE", "000", Err(Reason::MethodRefused)),
            ("OPTIONS", "99999999999", Ok("4294967294")),
            ("OPTIONS", "-1", Err(Reason::HeaderInvalid)),
            ("TRACE", "", Err(Reason::HeaderInvalid)),
            ("GET", "0", Ok("0")),
            ("GET", "x", Ok("x")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(MAX_FORWARDS, HeaderValue::from_static(sent));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let counted = count_hop(&method, &mut headers)
                .map(|()| headers[MAX_FORWARDS].to_str().unwrap().to_owned());
            assert_eq!(counted, left.map(str::to_owned), "{method} {sent}");
        }
        let mut twice = HeaderMap::new();
        twice.append(MAX_FORWARDS, HeaderValue::from_static("1"));
        twice.append(MAX_FORWARDS, HeaderValue::from_static("1"));
        assert_eq!(
            count_hop(&Method::TRACE, &mut twice),
            Err(Reason::HeaderInvalid)
        );
        assert_eq!(count_hop(&Method::TRACE, &mut HeaderMap::new()), Ok(()));
    }
}
