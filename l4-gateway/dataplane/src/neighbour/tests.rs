use super::*;
use crate::counters::Counters;
use crate::ids::Ids;

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
