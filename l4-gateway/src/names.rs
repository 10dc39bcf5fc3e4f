//! What operators call the parts of a flow: the words of tables, filters and their help, and of the configuration.

use clap::builder::{PossibleValue, PossibleValuesParser};
use dataplane::{FlowState, Protocol};

/// All values of one kind, each with its name and what it means.
#[derive(Debug)]
pub struct Names<T: 'static> {
    kind: &'static str,
    all: &'static [(T, &'static str, &'static str)],
}

/// How far flows are; the meaning says which of the service's timeouts ends them.
pub const STATES: Names<FlowState> = Names {
    kind: "state",
    all: &[
        (FlowState::Udp, "udp", "UDP (timeout: udp)"),
        (
            FlowState::SynReceived,
            "syn_received",
            "the client's SYN was forwarded (timeout: syn)",
        ),
        (
            FlowState::SynAnswered,
            "syn_answered",
            "the target answered, the client's ACK is due (timeout: syn)",
        ),
        (
            FlowState::Established,
            "established",
            "the handshake is complete (timeout: established)",
        ),
        (
            FlowState::FinClient,
            "fin_client",
            "the client has sent FIN (timeout: fin_wait)",
        ),
        (
            FlowState::FinTarget,
            "fin_target",
            "the target has sent FIN (timeout: fin_wait)",
        ),
        (
            FlowState::TimeWait,
            "time_wait",
            "both have sent FIN (timeout: time_wait)",
        ),
        (
            FlowState::Closed,
            "closed",
            "one has sent RST (timeout: close, or time_wait if it was not established)",
        ),
    ],
};

/// What flows are made of.
pub const PROTOCOLS: Names<Protocol> = Names {
    kind: "protocol",
    all: &[
        (Protocol::Tcp, "tcp", "connections"),
        (Protocol::Udp, "udp", "datagrams between the same two ends"),
    ],
};

impl<T: Copy + PartialEq> Names<T> {
    /// The name of a value.
    pub fn of(&self, value: T) -> &'static str {
        let mut all = self.all.iter();
        let named = all.find(|(known, ..)| *known == value);
        debug_assert!(named.is_some(), "a {} without a name", self.kind);
        named.map_or("", |(_, name, _)| name)
    }

    /// The value of a name.
    ///
    /// # Errors
    /// The names there are, if this is none of them.
    pub fn find(&self, name: &str) -> Result<T, String> {
        let mut all = self.all.iter();
        let found = all.find(|(_, known, _)| *known == name);
        found.map(|(value, ..)| *value).ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            format!(
                "{} {name:?}: expected one of {}",
                self.kind,
                names.join(", ")
            )
        })
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.all.iter().map(|(_, name, _)| *name)
    }

    /// All names with their values, for a key of the configuration.
    pub(crate) fn choices(&self) -> Vec<(&'static str, T)> {
        let all = self.all.iter();
        all.map(|(value, name, _)| (*name, *value)).collect()
    }

    /// Takes these names on the command line, and lists them in its help.
    pub(crate) fn parser(&self) -> PossibleValuesParser {
        let values = self.all.iter();
        PossibleValuesParser::new(
            values.map(|(_, name, meaning)| PossibleValue::new(*name).help(*meaning)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_name_of_its_own() {
        // They are numbered from 0, the last one is `Closed`.
        let numbers = STATES.all.iter().map(|(state, ..)| *state as usize);
        assert!(numbers.eq(0..=FlowState::Closed as usize));
        for name in STATES.names() {
            assert_eq!(STATES.of(STATES.find(name).unwrap()), name);
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(PROTOCOLS.find(PROTOCOLS.of(protocol)), Ok(protocol));
        }
    }

    #[test]
    fn what_is_no_name_is_told_the_names() {
        assert_eq!(
            PROTOCOLS.find("sctp"),
            Err("protocol \"sctp\": expected one of tcp, udp".into())
        );
        // Names are told from one another by all of their letters.
        for wrong in ["", "Udp", "syn", "closed "] {
            assert!(STATES.find(wrong).is_err(), "{wrong:?}");
        }
    }
}
