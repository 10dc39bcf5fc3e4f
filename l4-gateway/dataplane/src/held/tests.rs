use super::*;

const PORT: PortIndex = PortIndex(2);

fn held(frames: u16, per_queue: u16) -> Held {
    Held::new(Room {
        frames,
        bytes: 4,
        queues: 3,
        per_queue,
    })
}

fn take(held: &mut Held, queue: u16) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    held.release(queue, |frame, _| taken.push(frame.to_vec()));
    held.check_invariants();
    taken
}

#[test]
fn queues_share_the_buffers_and_keep_their_order() {
    let mut held = held(5, 3);
    for byte in 0..3 {
        assert!(held.push(0, &[byte], PORT, 0));
        assert_eq!(
            held.push(1, &[10 + byte; 2], PORT, 0),
            byte < 2,
            "five buffers"
        );
    }
    assert_eq!((held.count(0), held.count(1), held.count(2)), (3, 2, 0));
    assert_eq!(take(&mut held, 0), [[0], [1], [2]]);
    assert_eq!(take(&mut held, 0), Vec::<Vec<u8>>::new());
    assert!(held.push(2, b"last", PORT, 0));
    assert_eq!(take(&mut held, 1), [[10; 2], [11; 2]]);
    assert_eq!(take(&mut held, 2), [b"last"]);
}

#[test]
fn frames_are_taken_one_by_one_in_order() {
    let mut held = held(3, 3);
    let mut frame = Vec::new();
    assert_eq!(held.pop(0, &mut frame), None);
    for byte in 0..3 {
        assert!(held.push(0, &[byte], PortIndex(byte.into()), 0));
    }
    assert_eq!(held.pop(0, &mut frame), Some(PortIndex(0)));
    assert_eq!(frame, [0]);
    held.check_invariants();
    assert!(held.push(0, &[3], PORT, 0));
    for byte in [1, 2, 3] {
        assert!(held.pop(0, &mut frame).is_some());
        assert_eq!(frame, [byte]);
    }
    assert_eq!(held.pop(0, &mut frame), None);
    assert_eq!(held.count(0), 0);
    held.check_invariants();
    assert!(held.push(0, &[4], PORT, 0));
    assert_eq!(take(&mut held, 0), [[4]]);
}

#[test]
fn one_queue_cannot_take_all_buffers() {
    let mut held = held(8, 2);
    let room: Vec<bool> = (0..4).map(|byte| held.push(0, &[byte], PORT, 0)).collect();
    assert_eq!(room, [true, true, false, false]);
    assert!(held.push(1, &[0], PORT, 0));
    assert!(!held.push(1, &[0; 5], PORT, 0), "longer than a buffer");
    held.check_invariants();
}

#[test]
fn without_buffers_nothing_waits() {
    let mut held = held(0, 2);
    assert!(!held.push(0, &[0], PORT, 0));
    held.check_invariants();
}
