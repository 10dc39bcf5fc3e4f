use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::state::Progress;
use super::*;
use crate::family::{Family, V4, V6};
use crate::ids::{LocalIpId, TargetId};
use crate::limits::WHEEL_SLOTS;
use crate::secret::Secret;
use crate::service::{Mode, Protocol};

mod resizing;

/// A flow with its addresses, to be put into a table.
#[derive(Clone, Copy)]
struct Known<V: Family> {
    flow: Flow,
    addresses: Addresses<V::Address>,
}

impl<V: Family> Known<V> {
    fn client_key(&self) -> Tuple<V> {
        self.flow.client_key(&self.addresses)
    }

    fn target_key(&self) -> Tuple<V> {
        self.flow.target_key(&self.addresses)
    }

    fn insert(&self, table: &mut FlowTable) -> Option<u32> {
        table.insert::<V>(self.flow, &self.addresses)
    }
}

fn known<V: Family>(addresses: Addresses<V::Address>, port: u16, local_port: u16) -> Known<V> {
    let packet = Tuple::<V> {
        source: addresses.client,
        destination: addresses.vip,
        source_port: port,
        destination_port: 80,
        protocol: Protocol::Tcp,
    };
    let flow = Flow::new(&packet, 8080, local_port);
    Known { flow, addresses }
}

fn flow(client: u32, port: u16, target: u8, local_port: u16) -> Known<V4> {
    let addresses = Addresses {
        client: Ipv4Addr::from_bits(client),
        vip: Ipv4Addr::new(10, 0, 0, 100),
        target: Ipv4Addr::new(10, 3, 0, target),
        local: Ipv4Addr::new(10, 3, 0, 100),
    };
    known(addresses, port, local_port)
}

fn flow6(client: u32, port: u16, target: u8, local_port: u16) -> Known<V6> {
    let address = |subnet: u16, host: u32| {
        let subnet = Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, 0).to_bits();
        Ipv6Addr::from_bits(subnet | u128::from(host))
    };
    let addresses = Addresses {
        client: address(1, client),
        vip: address(0, 100),
        target: address(3, u32::from(target)),
        local: address(3, 0x100),
    };
    known(addresses, port, local_port)
}

fn table(flows: u32) -> FlowTable {
    FlowTable::new(flows, Secret::new([3; 32]))
}

/// DESIGN 9 allows 160 bytes a flow, all tables. The figures here are what a full worker of a million flows takes.
#[test]
fn a_flow_takes_86_bytes_in_all_tables_and_150_if_it_is_ipv6() {
    let flows = 1 << 20;
    let (narrow, wide) = table(flows).bytes();
    let per_flow = |bytes| bytes as f64 / f64::from(flows);
    let (narrow, wide) = (per_flow(narrow), per_flow(wide));
    assert_eq!(size_of::<Flow>(), 64);
    assert!(
        (85.0..86.0).contains(&narrow),
        "{narrow} bytes an IPv4 flow"
    );
    assert!((149.0..150.0).contains(&wide), "{wide} bytes an IPv6 flow");
}

#[test]
fn a_full_table_finds_every_flow_and_refuses_the_next() {
    let flows = 50_000;
    let mut table = table(flows);
    let numbers: Vec<u32> = (0..flows)
        .map(|n| {
            flow(n, 1, (n % 200) as u8, (n / 200) as u16)
                .insert(&mut table)
                .expect("room")
        })
        .collect();
    assert!(table.is_full());
    assert_eq!(flow(flows, 1, 250, 1).insert(&mut table), None);
    for (n, number) in (0..flows).zip(&numbers) {
        let flow = flow(n, 1, (n % 200) as u8, (n / 200) as u16);
        for (key, side) in [
            (flow.client_key(), Side::Client),
            (flow.target_key(), Side::Target),
        ] {
            let hash = table.hash(&key);
            let candidate = table.prefetch_entry(hash, false);
            assert_eq!(table.find(hash, candidate, &key), Some((*number, side)));
        }
    }
    assert_eq!(table.check_invariants(), 0);
}

/// At full load the likely candidate must be right nearly always, or prefetching it is for nothing.
#[test]
fn the_candidate_of_the_home_bucket_is_nearly_always_right() {
    let flows = 100_000;
    let mut table = table(flows);
    for n in 0..flows {
        flow(n, 1, (n % 200) as u8, (n / 200) as u16).insert(&mut table);
    }
    let right = (0..flows)
        .filter(|n| {
            let key = flow(*n, 1, (n % 200) as u8, (n / 200) as u16).client_key();
            let hash = table.hash(&key);
            let candidate = table.prefetch_entry(hash, false);
            table
                .find(hash, NONE, &key)
                .is_some_and(|(number, _)| number == candidate)
        })
        .count();
    assert!(right as f64 / f64::from(flows) > 0.97, "{right} of {flows}");
}

#[test]
fn keys_that_differ_in_one_bit_spread_evenly() {
    // Without the secret an attacker can't fill one bucket; with any secret, neighbouring tuples must spread like random ones.
    let secret = Secret::new([9; 32]);
    let mut buckets = [0u32; 256];
    let mut owners = [0u32; 4];
    for n in 0..65_536u32 {
        let hash = flow(0x0a01_0000 + (n >> 4), (n & 15) as u16, 1, 1)
            .client_key()
            .hash(&secret);
        buckets[(hash & 0xff) as usize] += 1;
        owners[((((hash >> 32) & 0xffff) * 4) >> 16) as usize] += 1;
    }
    assert!(
        buckets.iter().all(|count| (170..350).contains(count)),
        "{buckets:?}"
    );
    assert!(
        owners.iter().all(|count| (15_800..17_000).contains(count)),
        "{owners:?}"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8),
    Remove(u8),
    Free,
    Find(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u8>().prop_map(Step::Insert),
        2 => any::<u8>().prop_map(Step::Remove),
        2 => Just(Step::Free),
        1 => any::<u8>().prop_map(Step::Find),
    ];
    prop::collection::vec(step, 0..300)
}

proptest! {
    /// The table against a map, in a table so small that it fills and buckets overflow.
    #[test]
    fn the_table_agrees_with_a_map(steps in steps()) {
        let mut table = table(40);
        let mut model: HashMap<u8, u32> = HashMap::new();
        let mut removed = Vec::new();
        let make = |n: u8| flow(u32::from(n), 1, n % 4, u16::from(n));
        for step in steps {
            match step {
                Step::Insert(n) if !model.contains_key(&n) => {
                    let number = make(n).insert(&mut table);
                    prop_assert_eq!(number.is_some(), model.len() + removed.len() < 40);
                    model.extend(number.map(|number| (n, number)));
                }
                Step::Remove(n) => {
                    if let Some(number) = model.remove(&n) {
                        table.remove(number);
                        removed.push(number);
                    }
                }
                Step::Free => removed.drain(..).for_each(|number| table.free(number)),
                Step::Insert(n) | Step::Find(n) => {
                    let key = make(n).target_key();
                    let found = table.find(table.hash(&key), NONE, &key);
                    prop_assert_eq!(found, model.get(&n).map(|number| (*number, Side::Target)));
                }
            }
            prop_assert_eq!(table.len() as usize, model.len());
            prop_assert_eq!(table.check_invariants(), 40 - model.len() - removed.len());
        }
    }

    /// A flow on the wheel goes in the tick of its deadline or the next, whenever the timers run; none goes early.
    #[test]
    fn the_wheel_keeps_deadlines(
        flows in prop::collection::vec((0u32..2000, 1u32..1000), 1..40),
        pauses in prop::collection::vec(1u32..400, 1..60),
        budget in 1usize..50,
    ) {
        let mut table = table(40);
        let mut wheel = Wheel::new();
        let mut waiting: Vec<(u32, u32, u32)> = flows.iter().zip(0..).map(|((start, length), n)| (*start, *length, n)).collect();
        waiting.sort_unstable();
        waiting.reverse();
        let mut now = 0;
        let mut deadlines: HashMap<u32, u32> = HashMap::new();
        for pause in pauses.iter().cycle() {
            while let Some((start, length, n)) = waiting.last().copied().filter(|(start, ..)| *start <= now) {
                let _ = start;
                waiting.pop();
                let number = flow(n, 1, 1, n as u16).insert(&mut table).expect("room");
                table.get_mut(number).deadline = now + length;
                deadlines.insert(number, now + length);
                wheel.insert(&mut table, number, now);
            }
            loop {
                let mut left = budget;
                match wheel.next_due(&mut table, now, &mut left) {
                    Some(Due::Expired(number)) => {
                        let deadline = deadlines.remove(&number).expect("a flow goes once");
                        prop_assert!(deadline <= now, "{deadline} at {now}");
                        table.remove(number);
                        table.free(number);
                    }
                    Some(Due::Removed(_) | Due::Persists(_)) => prop_assert!(false, "nothing was removed, or marked"),
                    None if left == 0 => {}
                    None => break,
                }
            }
            prop_assert!(deadlines.values().all(|deadline| *deadline > now), "late at {now}: {deadlines:?}");
            if waiting.is_empty() && deadlines.is_empty() {
                break;
            }
            now += pause;
        }
        table.check_invariants();
    }
}

#[test]
fn a_removed_entry_is_reported_when_the_wheel_passes() {
    let mut table = table(4);
    let mut wheel = Wheel::new();
    let number = flow(1, 1, 1, 1).insert(&mut table).expect("room");
    table.get_mut(number).deadline = 100;
    wheel.insert(&mut table, number, 0);
    table.remove(number);
    let mut budget = 10;
    assert_eq!(wheel.next_due(&mut table, 99, &mut budget), None);
    assert_eq!(
        wheel.next_due(&mut table, 100, &mut budget),
        Some(Due::Removed(number))
    );
}

#[test]
fn a_deadline_that_moves_closer_is_noticed_within_a_turn() {
    let mut table = table(4);
    let mut wheel = Wheel::new();
    let number = flow(1, 1, 1, 1).insert(&mut table).expect("room");
    table.get_mut(number).deadline = 100_000;
    wheel.insert(&mut table, number, 0);
    table.get_mut(number).deadline = 10;
    let gone =
        (0..).find(|now| wheel.next_due(&mut table, *now, &mut 10) == Some(Due::Expired(number)));
    assert_eq!(gone, Some(WHEEL_SLOTS as u32 - 1));
}

#[test]
fn a_packet_belongs_to_the_side_whose_key_it_has() {
    fn side_of<V: Family>(known: &Known<V>, packet: &Tuple<V>) -> Option<Side> {
        known.flow.side::<V>(|| known.addresses, packet)
    }
    fn check<V: Family>(known: Known<V>) {
        assert_eq!(side_of(&known, &known.client_key()), Some(Side::Client));
        assert_eq!(side_of(&known, &known.target_key()), Some(Side::Target));
        assert_eq!(side_of(&known, &known.client_key().reversed()), None);
        let mut udp = known.client_key();
        udp.protocol = Protocol::Udp;
        assert_eq!(side_of(&known, &udp), None);
        let one_sided = Known::<V> {
            flow: known.flow.in_mode(Mode::Direct),
            ..known
        };
        assert_eq!(side_of(&one_sided, &known.client_key()), Some(Side::Client));
        assert_eq!(side_of(&one_sided, &known.target_key()), None);
        let mut free = known;
        free.flow.set_alive(false);
        assert_eq!(side_of(&free, &known.client_key()), None);
        assert_eq!(known.flow.local_id, LocalIpId(0));
        assert_eq!(known.flow.target_id, TargetId(0));
    }
    check(flow(0x0a01_000a, 40_000, 21, 5000));
    check(flow6(0x0a01_000a, 40_000, 21, 5000));
}

/// An IPv4 packet never finds an IPv6 flow, whose IPv4 addresses read as zeros, nor the other way round.
#[test]
fn families_are_kept_apart() {
    let mut table = table(8);
    let (narrow, wide) = (flow(1, 1, 1, 1), flow6(1, 1, 1, 1));
    let numbers = (narrow.insert(&mut table), wide.insert(&mut table));
    let key = narrow.client_key();
    assert_eq!(
        table.find(table.hash(&key), NONE, &key),
        numbers.0.map(|number| (number, Side::Client))
    );
    let key = wide.client_key();
    let found = table.find(table.hash(&key), NONE, &key);
    assert_eq!(found, numbers.1.map(|number| (number, Side::Client)));
    let zeros = Tuple::<V4> {
        source: Ipv4Addr::UNSPECIFIED,
        destination: Ipv4Addr::UNSPECIFIED,
        source_port: key.source_port,
        destination_port: key.destination_port,
        protocol: key.protocol,
    };
    let candidate = found.map_or(NONE, |(number, _)| number);
    assert_eq!(table.find(table.hash(&zeros), candidate, &zeros), None);
    assert_eq!(table.check_invariants(), 6);
}

#[test]
fn a_one_sided_flow_has_one_key_in_the_index() {
    let mut table = table(4);
    let known = flow6(1, 1, 1, 0);
    let number = table
        .insert::<V6>(known.flow.in_mode(Mode::Direct), &known.addresses)
        .expect("room");
    assert!(table.contains(&known.client_key()));
    assert!(!table.contains(&known.target_key()));
    assert_eq!(table.check_invariants(), 3);
    table.remove(number);
    table.free(number);
    assert_eq!(table.check_invariants(), 4);
}

#[test]
fn the_whole_state_table() {
    use crate::wire::tcp::{ACK, FIN, RST, SYN};
    use FlowState::{
        Closed, Established, FinClient, FinTarget, SynAnswered, SynReceived, TimeWait,
    };
    let (fin, handshake) = (FIN | ACK, SYN | ACK);
    // Rows: state; columns: from the client SYN, ACK, FIN, RST; from the target SYN+ACK, ACK, FIN, RST.
    let table = [
        (
            SynReceived,
            [
                SynReceived,
                SynReceived,
                FinClient,
                Closed,
                SynAnswered,
                SynReceived,
                FinTarget,
                Closed,
            ],
        ),
        (
            SynAnswered,
            [
                SynAnswered,
                Established,
                FinClient,
                Closed,
                SynAnswered,
                SynAnswered,
                FinTarget,
                Closed,
            ],
        ),
        (
            Established,
            [
                Established,
                Established,
                FinClient,
                Closed,
                Established,
                Established,
                FinTarget,
                Closed,
            ],
        ),
        (
            FinClient,
            [
                FinClient, FinClient, FinClient, Closed, FinClient, FinClient, TimeWait, Closed,
            ],
        ),
        (
            FinTarget,
            [
                FinTarget, FinTarget, TimeWait, Closed, FinTarget, FinTarget, FinTarget, Closed,
            ],
        ),
        (
            TimeWait,
            [
                TimeWait, TimeWait, TimeWait, Closed, TimeWait, TimeWait, TimeWait, Closed,
            ],
        ),
    ];
    for (state, expected) in table {
        let segments = [
            (Side::Client, SYN),
            (Side::Client, ACK),
            (Side::Client, fin),
            (Side::Client, RST),
            (Side::Target, handshake),
            (Side::Target, ACK),
            (Side::Target, fin),
            (Side::Target, RST),
        ];
        for ((side, flags), expected) in segments.into_iter().zip(expected) {
            let after = Progress::new(state).after(side, flags);
            assert_eq!(
                after.state(),
                expected,
                "{state:?}, flags {flags:#04x} from {side:?}"
            );
            assert_eq!(
                after.timed_as(),
                match expected {
                    Closed if state != Established => TimeWait,
                    other => other,
                },
                "the timeout of {state:?}, flags {flags:#04x} from {side:?}"
            );
        }
    }
}

#[test]
fn a_reset_counts_until_the_side_it_was_for_talks_on_and_is_forgotten_when_both_do() {
    use crate::wire::tcp::{ACK, FIN, RST};
    use FlowState::{Closed, Established, FinClient, FinTarget, SynReceived, TimeWait};
    use Side::{Client, Target};
    type Case = (
        &'static str,
        FlowState,
        &'static [(Side, u8)],
        (FlowState, FlowState),
    );
    // The state, and the one whose timeout holds.
    let cases: [Case; 13] = [
        (
            "the target answers the client's RST",
            Established,
            &[(Client, RST), (Target, ACK)],
            (Established, Closed),
        ),
        (
            "and the client is heard too",
            Established,
            &[(Client, RST), (Target, ACK), (Client, ACK)],
            (Established, Established),
        ),
        (
            "the client goes on after the target's RST",
            Established,
            &[(Target, RST), (Client, ACK)],
            (Established, Closed),
        ),
        (
            "and the target answers",
            Established,
            &[(Target, RST), (Client, ACK), (Target, ACK)],
            (Established, Established),
        ),
        (
            "who sent the RST sent more before it",
            Established,
            &[(Client, RST), (Client, ACK)],
            (Closed, Closed),
        ),
        (
            "or after it, as the answer shows",
            Established,
            &[(Client, RST), (Client, ACK), (Target, ACK)],
            (Established, Established),
        ),
        (
            "data on its way is answered by another RST",
            Established,
            &[(Target, RST), (Client, ACK), (Target, RST)],
            (Closed, Closed),
        ),
        (
            "both are reset, one lives",
            Established,
            &[(Client, RST), (Target, RST), (Target, ACK)],
            (Closed, Closed),
        ),
        (
            "both are reset, both live",
            Established,
            &[(Client, RST), (Target, RST), (Target, ACK), (Client, ACK)],
            (Established, Established),
        ),
        (
            "the state before comes back",
            FinClient,
            &[(Client, RST), (Target, ACK), (Client, ACK)],
            (FinClient, FinClient),
        ),
        (
            "going on is closing",
            Established,
            &[(Client, RST), (Target, FIN | ACK)],
            (FinTarget, TimeWait),
        ),
        (
            "an RST with ACK is one",
            Established,
            &[(Client, RST), (Target, RST | ACK)],
            (Closed, Closed),
        ),
        (
            "a handshake refused, and retried regardless",
            SynReceived,
            &[(Target, RST | ACK), (Client, ACK)],
            (SynReceived, TimeWait),
        ),
    ];
    for (description, before, segments, expected) in cases {
        let after = segments
            .iter()
            .fold(Progress::new(before), |progress, (side, flags)| {
                progress.after(*side, *flags)
            });
        assert_eq!((after.state(), after.timed_as()), expected, "{description}");
    }
}
