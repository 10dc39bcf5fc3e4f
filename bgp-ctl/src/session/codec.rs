//! Our routes as BGP messages. With [`super`], the only place that knows `rustbgpd-wire`.

use std::net::Ipv4Addr;

use bytes::Bytes;
use rustbgpd_wire::notification::{NotificationCode, cease_subcode, description};
use rustbgpd_wire::{
    Afi, AsPath, AsPathSegment, Ipv4NlriEntry, Ipv4Prefix, Ipv4UnicastMode, LargeCommunity,
    Message, NotificationMessage, Origin, PathAttribute, RouteRefreshMessage, RouteRefreshSubtype,
    Safi, UpdateMessage, encode_message,
};

use super::rib_out::Changes;
use crate::route::{Attributes, Community};

/// /32 prefixes in one UPDATE: 5 octets each, well inside 4096 (RFC 4271 4) with the largest attributes we write.
const PREFIXES_PER_UPDATE: usize = 400;

/// What an established session adds to a route on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Egress {
    pub(super) local_as: u32,
    /// iBGP: LOCAL_PREF is sent and the AS path stays empty (RFC 4271 5.1.2, 5.1.5).
    pub(super) internal: bool,
    pub(super) four_octet_as: bool,
    pub(super) next_hop: Ipv4Addr,
    pub(super) med: Option<u32>,
    pub(super) local_pref: u32,
    pub(super) communities: Vec<Community>,
}

/// Encodes a message. `None` only for a message beyond the protocol's limits, which nothing here builds.
pub(super) fn encode(message: &Message) -> Option<Bytes> {
    match encode_message(message) {
        Ok(bytes) => Some(bytes.freeze()),
        Err(error) => {
            tracing::error!(%error, message = %message, "BGP message can't be encoded, not sent");
            None
        }
    }
}

/// UPDATEs that carry `changes`, withdrawals first.
pub(super) fn updates(changes: &Changes, egress: &Egress) -> Vec<Bytes> {
    let mut messages = Vec::new();
    for vips in changes.withdraw.chunks(PREFIXES_PER_UPDATE) {
        messages.extend(update(&[], &entries(vips), &[], egress.four_octet_as));
    }
    for (attributes, vips) in &changes.announce {
        let attributes = path_attributes(attributes, egress);
        for vips in vips.chunks(PREFIXES_PER_UPDATE) {
            messages.extend(update(
                &entries(vips),
                &[],
                &attributes,
                egress.four_octet_as,
            ));
        }
    }
    messages
}

/// The End-of-RIB marker for IPv4 unicast: an UPDATE that says nothing (RFC 4724 2).
pub(super) fn end_of_rib() -> Option<Bytes> {
    update(&[], &[], &[], true)
}

/// Beginning or end of a route refresh (RFC 7313 3.2).
pub(super) fn refresh_marker(subtype: RouteRefreshSubtype) -> Option<Bytes> {
    encode(&Message::RouteRefresh(
        RouteRefreshMessage::new_with_subtype(Afi::Ipv4, Safi::Unicast, subtype),
    ))
}

/// A Cease NOTIFICATION without data (RFC 4486).
pub(super) fn cease(subcode: u8) -> Option<Bytes> {
    encode(&Message::Notification(NotificationMessage::new(
        NotificationCode::Cease,
        subcode,
        Bytes::new(),
    )))
}

/// Cease: the other one of two colliding connections lives on (RFC 4271 6.8, RFC 4486).
pub(super) const COLLISION: u8 = cease_subcode::CONNECTION_COLLISION_RESOLUTION;
/// Cease: the session doesn't take connections now (RFC 4486).
pub(super) const REJECTED: u8 = cease_subcode::CONNECTION_REJECTED;

/// A NOTIFICATION in words: code, subcode, meaning and shutdown text (RFC 9003) if it has one.
pub(super) fn describe(notification: &NotificationMessage) -> String {
    let mut text = format!(
        "NOTIFICATION {}/{} ({})",
        notification.code.as_u8(),
        notification.subcode,
        description(notification.code, notification.subcode)
    );
    if let Ok(Some(communication)) =
        rustbgpd_wire::notification::extract_shutdown_communication(notification)
    {
        // The neighbour's words go to our log: no control characters, whatever it sent (RFC 9003 4).
        let clean: String = communication
            .chars()
            .filter(|c| !c.is_control())
            .take(128)
            .collect();
        if !clean.is_empty() {
            text.push_str(": ");
            text.push_str(&clean);
        }
    }
    text
}

fn update(
    announced: &[Ipv4NlriEntry],
    withdrawn: &[Ipv4NlriEntry],
    attributes: &[PathAttribute],
    four_octet_as: bool,
) -> Option<Bytes> {
    let built = UpdateMessage::try_build(
        announced,
        withdrawn,
        attributes,
        four_octet_as,
        false,
        Ipv4UnicastMode::Body,
    );
    match built {
        Ok(update) => encode(&Message::Update(update)),
        Err(error) => {
            tracing::error!(%error, "UPDATE can't be built, not sent");
            None
        }
    }
}

fn entries(vips: &[Ipv4Addr]) -> Vec<Ipv4NlriEntry> {
    vips.iter()
        .map(|vip| Ipv4NlriEntry {
            path_id: 0,
            prefix: Ipv4Prefix::new(*vip, 32),
        })
        .collect()
}

/// Attributes in the order of their type codes (RFC 4271 5).
fn path_attributes(route: &Attributes, egress: &Egress) -> Vec<PathAttribute> {
    let segments = if egress.internal {
        Vec::new()
    } else {
        vec![AsPathSegment::AsSequence(vec![egress.local_as])]
    };
    let mut attributes = vec![
        PathAttribute::Origin(Origin::Igp),
        PathAttribute::AsPath(AsPath { segments }),
        PathAttribute::NextHop(egress.next_hop),
    ];
    if let Some(med) = route.med.or(egress.med) {
        attributes.push(PathAttribute::Med(med));
    }
    if egress.internal {
        attributes.push(PathAttribute::LocalPref(egress.local_pref));
    }
    let mut communities: Vec<Community> = egress
        .communities
        .iter()
        .chain(&route.communities)
        .copied()
        .collect();
    communities.sort_unstable();
    communities.dedup();
    let mut standard = Vec::new();
    let mut large = Vec::new();
    for community in communities {
        match community {
            Community::Standard(value) => standard.push(value),
            Community::Large(global, first, second) => {
                large.push(LargeCommunity::new(global, first, second))
            }
        }
    }
    if !standard.is_empty() {
        attributes.push(PathAttribute::Communities(standard));
    }
    if !large.is_empty() {
        attributes.push(PathAttribute::LargeCommunities(large));
    }
    attributes
}
