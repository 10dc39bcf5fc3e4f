use super::*;

/// The index is resized as flows come and go: at each count every flow is found, of both families and one-sided, most of them by
/// their candidates, and hashes are spread over what the flows need.
#[test]
fn the_index_grows_and_shrinks_with_the_flows() {
    let flows = 12_000;
    let mut table = table(flows);
    let mut numbers = Vec::new();
    let insert = |table: &mut FlowTable, n: u32| {
        let (target, port) = ((n % 200) as u8, (n / 200) as u16);
        let number = match n % 3 {
            0 => flow6(n, 1, target, port).insert(table),
            1 => flow(n, 1, target, port).insert(table),
            _ => {
                let Known { flow, addresses } = flow(n, 1, target, port);
                table.insert::<V4>(flow.in_mode(Mode::Direct), &addresses)
            }
        };
        number.expect("room")
    };
    let right = |table: &FlowTable| {
        let found = table.iter().filter(|(number, flow)| {
            let hash = if flow.is_v6() {
                table.hash(&flow.client_key::<V6>(&V6::addresses(table, *number)))
            } else {
                table.hash(&flow.client_key::<V4>(&V4::addresses(table, *number)))
            };
            table.prefetch_entry(hash, false) == *number
        });
        found.count() as f64 / f64::from(table.len())
    };
    let mut spreads = Vec::new();
    for n in 0..flows {
        numbers.push(insert(&mut table, n));
        if n % 997 == 0 {
            assert_eq!(table.check_invariants(), (flows - n - 1) as usize);
            assert!(right(&table) > 0.95, "{} at {n}", right(&table));
            spreads.push(table.index_spread());
        }
    }
    assert!(spreads.is_sorted(), "{spreads:?}");
    // Five keys for three flows, two and a half to six of them in a bucket.
    for (n, (buckets, _)) in (0..flows).step_by(997).zip(&spreads).skip(1) {
        let load = f64::from(n) * 5.0 / 3.0 / *buckets as f64;
        assert!((2.4..6.3).contains(&load), "{load} a bucket at {n}");
    }
    let mut spreads = Vec::new();
    for (n, number) in (0..flows).zip(numbers) {
        table.remove(number);
        table.free(number);
        if n % 997 == 0 {
            assert_eq!(table.check_invariants(), (n + 1) as usize);
            spreads.push(table.index_spread());
        }
    }
    assert!(spreads.is_sorted_by(|before, after| before >= after));
    // Down to a quarter of the flows nothing is merged.
    assert_eq!(spreads[8], spreads[0], "{spreads:?}");
    assert!(spreads[12] < spreads[0], "{spreads:?}");
    assert_eq!(table.index_spread(), (125, 4000));
    assert_eq!(table.check_invariants(), flows as usize);
}
