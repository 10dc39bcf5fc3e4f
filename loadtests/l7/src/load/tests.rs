//! Clients against the application, without a proxy between them.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;

fn clients(load: &mut Load, kind: Kind, exchange: Rc<Exchange>) -> Clients {
    let application = load.application().unwrap();
    load.clients(application, None, kind, vec![exchange])
}

#[test]
fn answers_as_they_must_be_are_counted() {
    let mut load = Load::start().unwrap();
    let bodies = [
        Exchange::small(),
        Exchange::download(3 << 20),
        Exchange::upload(3 << 20),
    ];
    for exchange in bodies {
        let mut clients = clients(&mut load, Kind::H1, exchange);
        let played = load.play(&mut clients, 4, Until::Count(10)).unwrap();
        assert_eq!(played.done, 10);
        let until = Until::Time(Instant::now() + Duration::from_millis(20));
        assert!(load.play(&mut clients, 4, until).unwrap().done > 0);
        load.close(&mut clients);
    }
    let mut tunnels = clients(&mut load, Kind::Tunnel, Exchange::small());
    // That time is over before a tunnel is open.
    let until = Until::Time(Instant::now());
    assert!(load.play(&mut tunnels, 2, until).unwrap().done > 0);
}

#[test]
fn an_answer_that_is_wrong_fails_what_is_measured() {
    let expected = || Answer::Exactly(pattern(exchange::SMALL).into());
    for (path, said) in [
        (path::BROKEN, "not a 200"),
        (path::WRONG, "differs from what was sent"),
        ("/bytes/127", "content-length 127 in place of 128"),
        ("/unknown", "nobody asked for /unknown"),
    ] {
        let mut load = Load::start().unwrap();
        let exchange = Exchange::get(path, expected(), false);
        let mut clients = clients(&mut load, Kind::H1, exchange);
        let error = load.play(&mut clients, 2, Until::Count(4)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(said), "{path}: {error}");
        // The next part begins anew.
        load.clear();
        let mut clients = self::clients(&mut load, Kind::H1, Exchange::small());
        assert_eq!(load.play(&mut clients, 2, Until::Count(4)).unwrap().done, 4);
    }
}

#[test]
fn time_spent_waiting_for_a_connection_is_part_of_a_latency() {
    let mut load = Load::start().unwrap();
    let mut clients = clients(&mut load, Kind::H1, Exchange::download(1 << 20));
    // Far more than one connection can carry: most of what is due waits, longer and longer.
    let length = Duration::from_millis(10);
    let took = load.pace(&mut clients, 1, 100_000.0, length, 1).unwrap();
    assert!(took.len() > 500, "{}", took.len());
    let (first, last) = (took[0], took[took.len() - 1]);
    // The first may be late where others have the core; the last waits for a thousand before it all the same.
    assert!(last > first + 5 * length, "{first:?} {last:?}");
}

#[test]
fn held_connections_are_each_asked_once() {
    let mut load = Load::start().unwrap();
    let mut clients = clients(&mut load, Kind::H1, Exchange::small());
    load.hold(&mut clients, 150).unwrap();
    assert_eq!(clients.open.len(), 150);
    load.close(&mut clients);
    assert!(load.clients.is_empty());
}
