//! The group that the access log's file is given, and whether this process may give it.

use std::fs::File;
use std::io;
use std::os::unix::fs::fchown;

use nix::unistd;
use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};
use shared::config::{Mistake, Place};

/// A group of this machine, and where the configuration names it. One is another only if its id is.
#[derive(Clone, Debug)]
pub struct Group {
    id: u32,
    /// By people's name for it, or its number where it has none.
    name: String,
    place: Place,
}

impl Group {
    /// The group with this id, named at `place`.
    pub fn new(id: u32, place: Place) -> Group {
        let known = unistd::Group::from_gid(id.into()).ok().flatten();
        Group {
            id,
            name: known.map_or_else(|| id.to_string(), |group| group.name),
            place,
        }
    }

    /// The id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What is to be warned of: that this process could not give a file to the group. Another user's process may.
    pub fn doubt(&self) -> Option<Mistake> {
        let may_chown = capabilities(None)
            .map(|sets| sets.effective.contains(CapabilitySet::CHOWN))
            .unwrap_or_else(|_| geteuid().is_root());
        let groups = getgroups().unwrap_or_default();
        let is_member = || {
            groups
                .into_iter()
                .chain([getegid()])
                .any(|group| group.as_raw() == self.id)
        };
        (!may_chown && !is_member()).then(|| self.mistake(""))
    }

    /// Gives the file to the group.
    ///
    /// # Errors
    /// With the place of the key and who may.
    pub(super) fn give(&self, file: &File) -> io::Result<()> {
        fchown(file, None, Some(self.id)).map_err(|error| {
            let mistake = self.mistake(&format!(": {error}"));
            io::Error::new(error.kind(), mistake.to_string())
        })
    }

    fn mistake(&self, why: &str) -> Mistake {
        let id = geteuid().as_raw();
        let known = unistd::User::from_uid(id.into()).ok().flatten();
        let user = known.map_or_else(|| id.to_string(), |user| user.name);
        let name = &self.name;
        self.place.mistake(
            format!("user {user} can't give a file to group {name}: only a member may, or who has CAP_CHOWN{why}"),
            format!("in the unit of the process, `SupplementaryGroups={name}`"),
        )
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Group) -> bool {
        self.id == other.id
    }
}

impl Eq for Group {}

#[cfg(test)]
mod tests {
    use shared::config::Document;

    use super::*;

    #[test]
    fn a_group_that_may_not_be_given_is_an_error_that_says_where_it_is_named_and_who_may() {
        // Nobody, not even root, changes the owners of what the kernel shows here.
        let file = File::open("/proc/sys/kernel/hostname").unwrap();
        let document = Document::from_toml("l7.toml", "\ngroup = 0").unwrap();
        let group = Group::new(0, document.root().place("group"));
        let error = group.give(&file).unwrap_err().to_string();
        assert!(
            error.starts_with("l7.toml:2: group: user ")
                && error.contains(" can't give a file to group root: only a member may, "),
            "{error}"
        );
    }
}
