//! The answer to somebody who names what is not there.

use std::collections::BTreeSet;

use crate::config::nearest;

/// Up to so many names are all listed; of more, only the nearest.
const MOST_LISTED: usize = 10;

/// Says that no `what` has this name, and which there are: of `known`.
pub fn no_such<'n>(what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let known: BTreeSet<&str> = known.into_iter().collect();
    if (1..=MOST_LISTED).contains(&known.len()) {
        let all: Vec<&str> = known.into_iter().collect();
        return format!("{what} {name:?}: expected one of {}", all.join(", "));
    }
    let count = known.len();
    if count == 0 {
        return format!("{what} {name:?}: there are none");
    }
    match nearest(name, known.into_iter()) {
        Some(near) => {
            format!("{what} {name:?}: no such name among {count}; did you mean {near:?}?")
        }
        None => format!("{what} {name:?}: no such name among {count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_are_listed_and_of_many_the_nearest() {
        assert_eq!(
            no_such("service", "wbe", ["web", "dns", "web"]),
            "service \"wbe\": expected one of dns, web"
        );
        let many: Vec<String> = (10..30).map(|n| format!("shop-{n}")).collect();
        let many = || many.iter().map(String::as_str);
        assert_eq!(
            no_such("service", "shpo-27", many()),
            "service \"shpo-27\": no such name among 20; did you mean \"shop-27\"?"
        );
        assert_eq!(
            no_such("service", "mail", many()),
            "service \"mail\": no such name among 20"
        );
        assert_eq!(no_such("target", "x", []), "target \"x\": there are none");
    }
}
