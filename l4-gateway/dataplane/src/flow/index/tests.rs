use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

proptest! {
    /// The index alone, with hashes that collide: in the bucket, in the tag, altogether.
    #[test]
    fn the_index_agrees_with_a_list(steps in prop::collection::vec((any::<bool>(), 0u64..6, 0u64..3, 0u32..8), 0..200)) {
        let mut index = Index::new(60);
        let mut model: Vec<(u64, u32)> = Vec::new();
        for (insert, bucket, tag, number) in steps {
            let hash = (bucket << 29) | ((tag + 1) << 48);
            let held = model.iter().position(|entry| *entry == (hash, number));
            match held {
                None if insert && model.len() < 60 => {
                    prop_assert!(index.insert(hash, number));
                    model.push((hash, number));
                }
                Some(at) if !insert => {
                    prop_assert!(index.remove(hash, number));
                    model.swap_remove(at);
                }
                None if !insert && model.iter().all(|(_, other)| *other != number) => {
                    prop_assert!(!index.remove(hash, number));
                }
                _ => {}
            }
            for (hash, number) in &model {
                prop_assert_eq!(index.find(*hash, |found| found == *number), Some(*number));
            }
            prop_assert_eq!(index.count(), model.len());
        }
        for (hash, number) in model {
            prop_assert!(index.remove(hash, number));
        }
        prop_assert_eq!(index.count(), 0);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// An index that is resized with each entry, in which the two hashes of a number collide with each other and with others': in the
    /// home, in the tag, in both.
    #[test]
    fn a_resized_index_keeps_every_entry(
        hashes in prop::collection::vec((hash(), hash()), 800),
        steps in prop::collection::vec((any::<bool>(), 0usize..800, 1usize..600), 1..12),
    ) {
        let mut index = Index::resizable(1600);
        let mut held: HashMap<u32, [u64; 2]> = HashMap::new();
        let of = |number: u32| {
            let (first, second) = hashes[number as usize];
            [first, second]
        };
        for (insert, from, count) in steps {
            for number in (from..hashes.len()).take(count) {
                let number = number as u32;
                let hashes = of(number);
                if hashes[0] == hashes[1] || held.contains_key(&number) == insert {
                    continue;
                }
                let step = if insert {
                    for hash in hashes {
                        prop_assert!(index.insert(hash, number));
                    }
                    held.insert(number, hashes);
                    index.crowded()
                } else {
                    for hash in hashes {
                        prop_assert!(index.remove(hash, number));
                    }
                    held.remove(&number);
                    index.sparse()
                };
                if let Some(step) = step {
                    let mut entries = Vec::new();
                    for home in step.homes() {
                        index.at_home(home, |number| of(number).map(Some), &mut entries);
                    }
                    index.resize(step, &entries);
                }
            }
            prop_assert_eq!(index.count(), 2 * held.len());
            let (homes, all) = index.spread();
            prop_assert!(homes == all || 2 * held.len() <= CROWDED * homes + 2, "{homes} homes of {}", held.len());
            for (number, hashes) in &held {
                for hash in hashes {
                    prop_assert_eq!(index.find(*hash, |found| found == *number), Some(*number));
                }
            }
        }
        for (number, hashes) in &held {
            for hash in hashes {
                prop_assert!(index.remove(*hash, *number));
            }
        }
        prop_assert_eq!(index.count(), 0);
        // Nothing is counted as passed by, or searches would go on for nothing.
        prop_assert!(index.buckets.iter().all(|bucket| bucket.passed == 0));
    }
}

/// Mostly spread evenly, often near one home, of few tags.
fn hash() -> impl Strategy<Value = u64> {
    let low = prop_oneof![3 => any::<u32>(), 1 => 0u32..1 << 22, 1 => Just(u32::MAX)];
    (low, 1u64..4).prop_map(|(low, tag)| tag << 48 | u64::from(low))
}
