use super::*;
use crate::counters::Counters;
use crate::ids::Ids;

fn held(frames: u16, per_neighbour: u16) -> Held {
    let limits = Limits {
        held_frames: frames,
        held_per_neighbour: per_neighbour,
        held_bytes: 4,
        ..Limits::default()
    };
    Held::new(&limits, 3)
}

fn take(held: &mut Held, neighbour: u16) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    held.release(neighbour, |frame, _| taken.push(frame.to_vec()));
    held.check_invariants();
    taken
}

#[test]
fn queues_share_the_buffers_and_keep_their_order() {
    let mut held = held(5, 3);
    for byte in 0..3 {
        assert!(held.push(0, &[byte], 0));
        assert_eq!(held.push(1, &[10 + byte; 2], 0), byte < 2, "five buffers");
    }
    assert_eq!((held.count(0), held.count(1), held.count(2)), (3, 2, 0));
    assert_eq!(take(&mut held, 0), [[0], [1], [2]]);
    assert_eq!(take(&mut held, 0), Vec::<Vec<u8>>::new());
    assert!(held.push(2, b"last", 0));
    assert_eq!(take(&mut held, 1), [[10; 2], [11; 2]]);
    assert_eq!(take(&mut held, 2), [b"last"]);
}

#[test]
fn one_neighbour_cannot_take_all_buffers() {
    let mut held = held(8, 2);
    let room: Vec<bool> = (0..4).map(|byte| held.push(0, &[byte], 0)).collect();
    assert_eq!(room, [true, true, false, false]);
    assert!(held.push(1, &[0], 0));
    assert!(!held.push(1, &[0; 5], 0), "longer than a buffer");
    held.check_invariants();
}

#[test]
fn without_buffers_nothing_waits() {
    let mut held = held(0, 2);
    assert!(!held.push(0, &[0], 0));
    held.check_invariants();
}

#[test]
fn epochs_begin_anew_when_they_run_out() {
    let limits = Limits {
        neighbours: 4,
        ..Limits::default()
    };
    let tables = Tables::builder()
        .build(&mut Ids::new(&limits), None)
        .expect("an empty snapshot");
    let mut neighbours = Neighbours::new(&limits, Secret::new([1; 32]));
    neighbours.epoch = u16::MAX;
    neighbours.follow(&tables, Now(0), &Counters::new(1, &limits).cells(0));
    assert_eq!(neighbours.epoch(), 1);
    assert!(neighbours.has_wrapped());
    assert!(!neighbours.has_wrapped());
}
