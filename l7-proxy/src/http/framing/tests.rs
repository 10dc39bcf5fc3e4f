use super::*;

/// Scans in one piece and again byte by byte; both must agree.
fn verdict(input: &str) -> Scan {
    let whole = Framing::http1().scan(input.as_bytes());
    let mut framing = Framing::http1();
    let mut pieces = Scan::Passed;
    for byte in input.as_bytes() {
        pieces = framing.scan(std::slice::from_ref(byte));
        if pieces != Scan::Passed {
            break;
        }
    }
    match (whole, pieces) {
        (Scan::Violated(_, one), Scan::Violated(_, other)) => {
            assert_eq!(one, other, "{input:?}")
        }
        (Scan::Held(_), Scan::Held(_)) | (Scan::Passed, Scan::Passed) => {}
        differ => panic!("{input:?}: {differ:?}"),
    }
    whole
}

#[test]
fn sound_requests_pass_in_one_piece_and_byte_by_byte() {
    for input in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe\n\0oGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert_eq!(verdict(input), Scan::Passed, "{input:?}");
    }
}

#[test]
fn ambiguous_framing_is_refused() {
    use Violation as V;
    for (input, expected) in [
        ("GET / HTTP/1.1\nHost: a\n\n", V::BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", V::BareLineFeed),
        ("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", V::BareCarriageReturn),
        ("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", V::NulByte),
        ("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", V::FoldedLine),
        (
            "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            V::BothLengths,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
            V::BothLengths,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
            V::RepeatedLength,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n",
            V::BadLength,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\n",
            V::BadLength,
        ),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", V::BadLength),
        (
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            V::BadLength,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            V::TransferCoding,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            V::TransferCoding,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
            V::ChunkSize,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
            V::ChunkSize,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
            V::ChunkSize,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
            V::ChunkSize,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n",
            V::ChunkSize,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            V::ChunkSize,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
            V::ChunkSize,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
            V::ChunkEnd,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\n\r\n",
            V::BareLineFeed,
        ),
        (
            "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            V::LeadingLines,
        ),
    ] {
        match verdict(input) {
            Scan::Violated(_, violation) => assert_eq!(violation, expected, "{input:?}"),
            other => panic!("{input:?}: {other:?}"),
        }
    }
}

#[test]
fn nothing_behind_an_upgrade_is_parsed_until_it_is_decided() {
    let head = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let bytes = format!("{head}GET /smuggled HTTP/1.1\n\n");
    let mut framing = Framing::http1();
    assert_eq!(framing.scan(bytes.as_bytes()), Scan::Held(head.len()));
    assert_eq!(framing.scan(&bytes.as_bytes()[head.len()..]), Scan::Held(0));
    framing.decide(Leaving::Http);
    assert!(matches!(
        framing.scan(&bytes.as_bytes()[head.len()..]),
        Scan::Violated(0, Violation::BareLineFeed)
    ));

    let mut framing = Framing::http1();
    assert_eq!(framing.scan(head.as_bytes()), Scan::Held(head.len()));
    framing.decide(Leaving::Tunnel);
    assert_eq!(framing.scan(b"\x00\n\nanything"), Scan::Passed);
}

#[test]
fn a_uri_without_a_path_asks_about_the_server() {
    for (line, about) in [
        ("OPTIONS http://a.test HTTP/1.1", true),
        ("OPTIONS https://a.test:80 HTTP/1.1", true),
        ("OPTIONS http://a.test/ HTTP/1.1", false),
        ("OPTIONS http://a.test?x HTTP/1.1", false),
        ("OPTIONS http:// HTTP/1.1", false),
        ("OPTIONS * HTTP/1.1", false),
        ("OPTIONS /x://y HTTP/1.1", false),
        ("GET http://a.test HTTP/1.1", false),
    ] {
        let mut framing = Framing::http1();
        let head = format!("{line}\r\nHost: a.test\r\n\r\n");
        let (first, held) = (framing.scan(head.as_bytes()), framing.about_server());
        assert_eq!(held, about.then_some(1), "{line}: {first:?}");
    }
    let mut framing = Framing::http1();
    let two = "GET / HTTP/1.1\r\n\r\nOPTIONS http://a HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    assert!(matches!(framing.scan(two.as_bytes()), Scan::Held(_)));
    assert_eq!(framing.about_server(), Some(2));
    framing.decide(Leaving::Http);
    assert_eq!(framing.about_server(), None);
}

#[test]
fn every_violation_survives_its_code() {
    for code in 1..=11 {
        assert_eq!(
            Violation::from_code(code).map(|violation| violation as u8),
            Some(code)
        );
    }
    assert_eq!(Violation::from_code(0), None);
    assert_eq!(Violation::from_code(12), None);
}

/// Pieces of requests, sound and not, to be put together at random.
const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: websocket\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
    "\0",
    "5\r\n",
    "hello",
    "hello\r\n",
    "0\r\n",
    "a;b=c\r\n",
    "0123456789",
];

proptest::proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_how_bytes_are_split(
        pieces in proptest::collection::vec(0..PIECES.len(), 0..24),
        cuts in proptest::collection::vec(1_usize..40, 0..24),
    ) {
        let input: String = pieces.iter().map(|&piece| PIECES[piece]).collect();
        let input = input.as_bytes();
        let whole = Framing::http1().scan(input);

        let mut framing = Framing::http1();
        let (mut split, mut at) = (Scan::Passed, 0);
        let mut cuts = cuts.into_iter();
        while at < input.len() && split == Scan::Passed {
            let end = input.len().min(at + cuts.next().unwrap_or(usize::MAX - at));
            split = match framing.scan(&input[at..end]) {
                Scan::Passed => Scan::Passed,
                Scan::Held(n) => Scan::Held(at + n),
                Scan::Violated(n, violation) => Scan::Violated(at + n, violation),
            };
            at = end;
        }
        match (whole, split) {
            // What came before the line in fault may have been let through already, part of that line included.
            (Scan::Violated(early, one), Scan::Violated(late, other)) => {
                proptest::prop_assert_eq!(one, other);
                proptest::prop_assert!(early <= late);
            }
            (one, other) => proptest::prop_assert_eq!(one, other),
        }
    }
}
