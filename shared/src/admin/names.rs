//! What is said to somebody who names what is not there.

use std::collections::BTreeSet;

use crate::config::nearest;

/// So many names are all told; of more, the one that is most alike.
const MOST_TOLD: usize = 10;

/// There is no `what` of this name among those that are `known`.
pub fn no_such<'n>(what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let known: BTreeSet<&str> = known.into_iter().collect();
    if (1..=MOST_TOLD).contains(&known.len()) {
        let all: Vec<&str> = known.into_iter().collect();
        return format!("{what} {name:?}: expected one of {}", all.join(", "));
    }
    let count = known.len();
    if count == 0 {
        return format!("{what} {name:?}: there is none of any name");
    }
    match nearest(name, known.into_iter()) {
        Some(near) => {
            format!("{what} {name:?}: none of {count} is called so; did you mean {near:?}?")
        }
        None => format!("{what} {name:?}: none of {count} is called so"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_are_told_and_of_many_the_nearest() {
        assert_eq!(
            no_such("service", "wbe", ["web", "dns", "web"]),
            "service \"wbe\": expected one of dns, web"
        );
        let many: Vec<String> = (10..30).map(|n| format!("shop-{n}")).collect();
        let many = || many.iter().map(String::as_str);
        assert_eq!(
            no_such("service", "shpo-27", many()),
            "service \"shpo-27\": none of 20 is called so; did you mean \"shop-27\"?"
        );
        assert_eq!(
            no_such("service", "mail", many()),
            "service \"mail\": none of 20 is called so"
        );
        assert_eq!(
            no_such("target", "x", []),
            "target \"x\": there is none of any name"
        );
    }
}
