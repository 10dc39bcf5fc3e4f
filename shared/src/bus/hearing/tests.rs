//! What proves hearing, one by one, and then a fleet over a bus with faults.

mod simulation;

use super::*;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One that has read all there was up to revision 10 at 0 s; others are given 2 s to come back.
fn current() -> Hearing {
    let mut hearing = Hearing::new(ms(2000));
    hearing.interrupted();
    assert_eq!(hearing.current(ms(0), 10), None);
    hearing
}

/// A put at `sent` that the servers took as `revision` and told of, both at `now`.
fn round_trip(hearing: &mut Hearing, sent: u64, now: u64, revision: u64) -> Option<Heard> {
    let ticket = hearing.sent(ms(sent))?;
    assert_eq!(
        hearing.acknowledged(ms(now), ticket, revision),
        Acknowledged::Noted
    );
    hearing.told(ms(now), revision)
}

fn stretch(since: u64, until: u64) -> Option<Heard> {
    Some(Heard {
        since: ms(since),
        until: ms(until),
    })
}

#[test]
fn a_put_that_comes_back_proves_hearing_up_to_when_it_was_sent() {
    let mut hearing = current();
    // The first stretch begins when others have had their time to come back.
    assert_eq!(
        round_trip(&mut hearing, 1000, 1100, 11),
        stretch(3000, 1000)
    );
    assert_eq!(
        round_trip(&mut hearing, 2000, 2100, 13),
        stretch(3000, 2000)
    );
    assert_eq!(hearing.heard(ms(2100)), stretch(3000, 2000));
    assert_eq!(hearing.heard(ms(9000)), None);
}

#[test]
fn what_the_servers_took_proves_nothing_until_it_is_told() {
    let mut hearing = current();
    let ticket = hearing.sent(ms(0)).unwrap();
    assert_eq!(
        hearing.acknowledged(ms(10), ticket, 12),
        Acknowledged::Noted
    );
    assert_eq!(hearing.told(ms(20), 11), None, "somebody else's");
    assert_eq!(hearing.told(ms(30), 12), stretch(2000, 0));
}

#[test]
fn a_later_message_proves_it_too_and_the_acknowledgement_may_come_last() {
    let mut hearing = current();
    let ticket = hearing.sent(ms(0)).unwrap();
    assert_eq!(hearing.told(ms(20), 14), None);
    assert_eq!(
        hearing.acknowledged(ms(30), ticket, 12),
        Acknowledged::Heard(stretch(2000, 0).unwrap())
    );
}

#[test]
fn a_gap_between_proofs_begins_a_new_stretch() {
    let mut hearing = current();
    round_trip(&mut hearing, 0, 1, 11);
    assert_eq!(
        round_trip(&mut hearing, 1500, 1501, 12),
        stretch(2000, 1500)
    );
    // Nothing says that the bus was away: others needn't come back.
    assert_eq!(
        round_trip(&mut hearing, 3100, 3101, 13),
        stretch(3100, 3100)
    );
}

#[test]
fn a_put_that_was_held_up_proves_nothing() {
    let mut hearing = current();
    round_trip(&mut hearing, 0, 1, 11);
    // Traffic was held and let go: puts of others may still be on their way.
    assert_eq!(round_trip(&mut hearing, 1000, 4000, 12), None);
    assert_eq!(round_trip(&mut hearing, 2000, 4000, 13), None);
    assert_eq!(
        round_trip(&mut hearing, 4100, 4200, 14),
        stretch(6100, 4100)
    );
}

#[test]
fn a_refused_put_ends_the_stretch() {
    let mut hearing = current();
    round_trip(&mut hearing, 0, 1, 11);
    let ticket = hearing.sent(ms(500));
    assert!(ticket.is_some());
    hearing.refused(ticket);
    assert_eq!(hearing.heard(ms(500)), None);
    assert_eq!(
        round_trip(&mut hearing, 1000, 1001, 12),
        stretch(3000, 1000)
    );
}

#[test]
fn a_put_that_does_not_come_back_gives_the_reader_up() {
    let mut hearing = current();
    let ticket = hearing.sent(ms(0)).unwrap();
    assert_eq!(
        hearing.deadline(),
        None,
        "the servers have not taken it: that is not the reader's fault"
    );
    hearing.acknowledged(ms(100), ticket, 11);
    assert_eq!(hearing.deadline(), Some(ms(1100)));
    hearing.gave_up();
    hearing.interrupted();
    assert_eq!(hearing.deadline(), None);

    // The next is given more time, and one that tells of other things is at work.
    hearing.current(ms(1200), 11);
    let ticket = hearing.sent(ms(2000)).unwrap();
    hearing.acknowledged(ms(2000), ticket, 20);
    assert_eq!(hearing.deadline(), Some(ms(4000)));
    hearing.told(ms(3000), 15);
    assert_eq!(hearing.deadline(), Some(ms(5000)));
}

#[test]
fn a_bucket_that_counts_from_an_earlier_revision_is_another_one() {
    let mut hearing = current();
    let ticket = hearing.sent(ms(0)).unwrap();
    assert_eq!(
        hearing.acknowledged(ms(1), ticket, 10),
        Acknowledged::RolledBack
    );
    // A message that overtakes an acknowledgement is no such thing.
    let mut hearing = current();
    let ticket = hearing.sent(ms(0)).unwrap();
    hearing.told(ms(1), 12);
    assert!(matches!(
        hearing.acknowledged(ms(1), ticket, 11),
        Acknowledged::Heard(_)
    ));
}

#[test]
fn puts_waiting_for_their_proof_are_bounded() {
    let mut hearing = current();
    for number in 0..1000 {
        hearing.sent(ms(number * 250));
    }
    assert_eq!(hearing.puts.len(), MOST);
    let mut hearing = current();
    let looked_at = (0..1000).filter(|at| hearing.sent(ms(*at)).is_some());
    assert_eq!(looked_at.count(), 5, "one in {SPACING:?}");
}
