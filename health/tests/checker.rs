//! The checker as its users see it: real targets that come and go, and what is heard of them.

#![allow(
    clippy::disallowed_methods,
    reason = "a test that ends soon may listen without a bound"
)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may end on what it did not expect.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Context, Handler};
use health::{Check, CheckSettings, Checker, SetChecks, State, Statuses, Transition};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

struct Listener(Sender<Transition>);

impl Actor for Listener {
    type Context = Context<Listener>;
}

impl Handler<Transition> for Listener {
    type Result = ();

    fn handle(&mut self, transition: Transition, _: &mut Context<Listener>) {
        self.0.try_send(transition).unwrap();
    }
}

fn checker(limit: usize) -> (Addr<Checker>, Receiver<Transition>) {
    let (told, heard) = channel(4096);
    let listener = Listener(told).start();
    (
        Checker::with_limit(listener.recipient(), limit).start(),
        heard,
    )
}

fn run(story: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(story);
}

fn check(id: &str, address: SocketAddr) -> Check {
    let settings = CheckSettings {
        interval: Duration::from_millis(50),
        // Far above what the loopback needs, so that a busy machine is not taken for a dead target.
        timeout: Duration::from_secs(3),
        retry_delay: Duration::from_millis(10),
        retries: 1,
        ..CheckSettings::default()
    };
    settings.check(id, address)
}

async fn next(heard: &mut Receiver<Transition>) -> Transition {
    timeout(Duration::from_secs(5), heard.recv())
        .await
        .expect("a transition comes")
        .expect("the checker lives")
}

fn bind(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_target_that_goes_and_comes_back_is_reported_each_time() {
    run(async {
        let (checker, mut heard) = checker(16);
        let (listener, address) = bind("127.0.0.1:0");
        checker.do_send(SetChecks(vec![check("web", address)]));
        let story = |transition: Transition| {
            assert_eq!(
                (transition.id.as_str(), transition.address),
                ("web", address)
            );
            (transition.state, transition.first, transition.reason)
        };
        assert_eq!(
            story(next(&mut heard).await),
            (State::Up, true, "connected".to_owned())
        );
        drop(listener);
        assert_eq!(
            story(next(&mut heard).await),
            (State::Down, false, "connect refused".to_owned())
        );
        let _listener = bind(&address.to_string());
        assert_eq!(
            story(next(&mut heard).await),
            (State::Up, false, "connected".to_owned())
        );
        assert!(
            timeout(Duration::from_millis(300), heard.recv())
                .await
                .is_err(),
            "nothing else to tell"
        );
    });
}

#[test]
fn a_new_set_leaves_unchanged_checks_alone_and_ends_the_others() {
    run(async {
        let (checker, mut heard) = checker(16);
        let (_kept, kept) = bind("127.0.0.1:0");
        let (gone_listener, gone) = bind("127.0.0.1:0");
        checker.do_send(SetChecks(vec![check("kept", kept), check("gone", gone)]));
        for _ in 0..2 {
            assert!(next(&mut heard).await.first);
        }
        actix_rt::time::sleep(Duration::from_millis(200)).await;
        let (_new, new) = bind("127.0.0.1:0");
        checker.do_send(SetChecks(vec![check("kept", kept), check("new", new)]));
        drop(gone_listener);
        let transition = next(&mut heard).await;
        assert_eq!((transition.id.as_str(), transition.first), ("new", true));
        assert!(
            timeout(Duration::from_millis(400), heard.recv())
                .await
                .is_err(),
            "neither kept nor gone are heard of"
        );
        let statuses = checker.send(Statuses).await.unwrap();
        let told: Vec<_> = statuses
            .iter()
            .map(|status| (status.id.as_str(), status.state))
            .collect();
        assert_eq!(told, [("kept", State::Up), ("new", State::Up)]);
        assert!(
            statuses[0].probes > statuses[1].probes,
            "kept kept its count: {statuses:?}"
        );
    });
}

#[test]
fn targets_that_hang_do_not_hold_up_the_others() {
    run(async {
        let (checker, mut heard) = checker(2);
        // Replies are required of a socket that never answers.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut hanging = check("hanging", silent.local_addr().unwrap());
        hanging.settings.timeout = Duration::from_millis(50);
        hanging.settings.probe = health::Probe::Udp(health::UdpProbe {
            require_reply: true,
            ..Default::default()
        });
        let (_listener, address) = bind("127.0.0.1:0");
        let mut checks: Vec<Check> = (0..8)
            .map(|index| Check {
                id: format!("hanging-{index}").into(),
                ..hanging.clone()
            })
            .collect();
        checks.push(check("web", address));
        let started = Instant::now();
        checker.do_send(SetChecks(checks));
        let mut down = 0;
        let mut up = 0;
        while down + up < 9 {
            match next(&mut heard).await.state {
                State::Down => down += 1,
                State::Up => up += 1,
            }
        }
        assert_eq!(
            (down, up),
            (8, 1),
            "each has its turn within {:?}",
            started.elapsed()
        );
    });
}

#[test]
fn a_thousand_targets_are_all_found() {
    run(async {
        let (checker, mut heard) = checker(64);
        let (_listener, open) = bind("127.0.0.1:0");
        let closed = bind("127.0.0.1:0").1;
        let checks = (0..1000)
            .map(|index| {
                check(
                    &index.to_string(),
                    if index % 2 == 0 { open } else { closed },
                )
            })
            .map(|mut check| {
                check.settings.interval = Duration::from_millis(500);
                check
            })
            .collect();
        checker.do_send(SetChecks(checks));
        let mut up = 0;
        for _ in 0..1000 {
            let transition = next(&mut heard).await;
            assert!(transition.first);
            assert_eq!(transition.state.is_up(), transition.address == open);
            up += usize::from(transition.state.is_up());
        }
        assert_eq!(up, 500);
    });
}
