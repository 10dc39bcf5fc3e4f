//! From checked configuration and target states to a snapshot. Everything that could make a snapshot wrong is an error here.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::announced::announced;
use super::net::{Hop, Net};
use super::{Cut, Cuts, LocalIp, Owned, Tables, TablesError};
use crate::family::{Family, V4, V6};
use crate::ids::{Ids, TargetId};
use crate::limits::MOST_ROUTERS;
use crate::next_hops::{NextHop, NextHops, Sharing};
use crate::port::{Port, PortIndex, Route};
use crate::schedule;
use crate::service::{Mode, Service, ServiceConfig, Target, Timeouts};
use crate::steer::{Spread, Steering};

/// What an address was that is kept for its flows only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// A VIP, and whether ARP or neighbour solicitations were answered for it.
    Vip {
        /// Whether they were.
        arp: bool,
    },
    /// A LocalIP.
    LocalIp,
}

/// Collects what a snapshot is made of.
#[derive(Clone, Debug, Default)]
pub struct TablesBuilder {
    ports: Vec<Port>,
    spreads: Vec<(PortIndex, Spread)>,
    routes: Vec<Route>,
    local_ips: Vec<IpAddr>,
    services: Vec<ServiceConfig>,
    retired: Vec<(IpAddr, Retired)>,
    cuts: Vec<Cut>,
    announcement: u64,
    is_silent: bool,
}

impl TablesBuilder {
    /// Adds a port.
    pub fn port(&mut self, port: Port) -> &mut Self {
        self.ports.push(port);
        self
    }

    /// Says what a port's NIC does to bring packets to their workers; without a word, nothing that is known.
    pub fn spread(&mut self, port: PortIndex, spread: Spread) -> &mut Self {
        self.spreads.push((port, spread));
        self
    }

    /// Adds a route.
    pub fn route(&mut self, route: Route) -> &mut Self {
        self.routes.push(route);
        self
    }

    /// Adds a LocalIP. It is used on the port that a route to it leads to.
    pub fn local_ip(&mut self, address: impl Into<IpAddr>) -> &mut Self {
        self.local_ips.push(address.into());
        self
    }

    /// Keeps an address that the configuration no longer has known for the flows that use it: the node goes on answering for it, and packets
    /// to it find their worker. New flows don't get it. Without effect on an address that has a role again, or that no route leads to any more.
    pub fn retired(&mut self, address: IpAddr, role: Retired) -> &mut Self {
        self.retired.push((address, role));
        self
    }

    /// Has the workers end the flows of what has left the configuration, both ends of open connections by RST. Without effect on what has
    /// been added again.
    pub fn cut(&mut self, cut: Cut) -> &mut Self {
        self.cuts.push(cut);
        self
    }

    /// Has all addresses that are answered for announced again where `number` is another than in the snapshot before (RFC 5227 3, RFC 4861
    /// 7.2.6): the node serves again, or a link is back. New addresses, and those whose port or MAC is another, are announced without it.
    pub fn announcement(&mut self, number: u64) -> &mut Self {
        self.announcement = number;
        self
    }

    /// Announces nothing: the node does not serve yet, and another may have its addresses.
    pub fn silent(&mut self) -> &mut Self {
        self.is_silent = true;
        self
    }

    /// Adds a service.
    pub fn service(&mut self, service: ServiceConfig) -> &mut Self {
        self.services.push(service);
        self
    }

    /// Builds the snapshot. Scheduler layouts that didn't change are taken over from `previous`, and so is the RSS that names the owners of
    /// clients' packets: flows would be looked for where they aren't.
    ///
    /// # Errors
    /// The first thing found wrong. Numbers given out meanwhile stay given out until [`Ids::reclaim`].
    pub fn build(&self, ids: &mut Ids, previous: Option<&Tables>) -> Result<Tables, TablesError> {
        self.check_ports()?;
        let mut routers = Vec::new();
        let mut tables = Tables {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            ports: self.ports.clone(),
            v4: self.net(&mut routers)?,
            v6: self.net(&mut routers)?,
            routers: Vec::new(),
            next_hops: Vec::new(),
            announced: Arc::default(),
            announcement: self.announcement,
            cuts: Cuts::default(),
            local_ips: Vec::with_capacity(self.local_ips.len()),
            steering: Steering::default(),
            default_timeouts: Timeouts::default().by_state(),
            timeouts: Vec::new(),
            services: Vec::new(),
            targets: Vec::new(),
        };
        for &address in &self.local_ips {
            let rules = &self.spreads;
            let local = match address {
                IpAddr::V4(address) => add_local_ip::<V4>(&mut tables.v4, address, rules, ids)?,
                IpAddr::V6(address) => add_local_ip::<V6>(&mut tables.v6, address, rules, ids)?,
            };
            tables.local_ips.push(local);
        }
        let before = previous.map(Tables::steering);
        tables.steering = Steering::new(&self.spreads, &tables.local_ips, before);
        for config in &self.services {
            match config.vip {
                IpAddr::V4(vip) => add_service::<V4>(&mut tables, config, vip, ids, previous)?,
                IpAddr::V6(vip) => add_service::<V6>(&mut tables, config, vip, ids, previous)?,
            }
        }
        for (address, role) in &self.retired {
            match address {
                IpAddr::V4(address) => add_retired::<V4>(&mut tables.v4, *address, *role, ids)?,
                IpAddr::V6(address) => add_retired::<V6>(&mut tables.v6, *address, *role, ids)?,
            }
        }
        tables.routers = routers;
        tables.next_hops = next_hops(&tables);
        if !self.is_silent {
            tables.announced = announced(&tables, previous);
        }
        tables.cuts = Cuts::new(&tables, &self.cuts, ids);
        Ok(tables)
    }

    fn check_ports(&self) -> Result<(), TablesError> {
        let mut indices = HashSet::new();
        for port in &self.ports {
            if port.index.0 > 255 {
                return Err(TablesError::PortOutOfRange(port.index.0));
            }
            if !indices.insert(port.index) {
                return Err(TablesError::DuplicatePort(port.index.0));
            }
            if port.ipv4.is_none() && port.ipv6.is_none() {
                return Err(TablesError::NoSegment(port.index.0));
            }
        }
        Ok(())
    }

    /// Routes and the ports' own addresses of one family.
    fn net<V: Family>(&self, routers: &mut Vec<NextHop>) -> Result<Net<V>, TablesError> {
        let mut net = Net {
            routes: self.routes(routers)?,
            ..Net::default()
        };
        for port in &self.ports {
            let answers = port.answers;
            if let Some(address) = port.address::<V>() {
                own(&mut net, address, Owned::Port { answers })?;
            }
        }
        Ok(net)
    }

    /// On-link prefixes, routes and gateways as one list, longest prefix first; their routers are added to `routers`.
    fn routes<V: Family>(&self, routers: &mut Vec<NextHop>) -> Result<Vec<Hop<V>>, TablesError> {
        let segments = || {
            let segment = |port| V::segment(port).map(|segment| (port.index, segment));
            self.ports.iter().filter_map(segment)
        };
        let mut ways = Vec::new();
        for (port, segment) in segments() {
            check_prefix::<V>(segment.address, segment.prefix)?;
            ways.push((port, (segment.address, segment.prefix), NextHops::ON_LINK));
        }
        for route in &self.routes {
            let Some(destination) = V::address(route.destination) else {
                continue;
            };
            check_prefix::<V>(destination, route.prefix)?;
            let mixed = |gateway: IpAddr| TablesError::MixedRoute {
                destination: route.destination,
                gateway,
            };
            let via = |given: IpAddr| V::address(given).ok_or_else(|| mixed(given));
            let via: Vec<V::Address> = route.via.iter().map(via).collect::<Result<_, _>>()?;
            let via = NextHops::new(via, route.via.sharing()).unwrap_or(NextHops::ON_LINK);
            self.check_gateways::<V>(route.port, &via)?;
            ways.push((route.port, (destination, route.prefix), via));
        }
        for (port, segment) in segments() {
            self.check_gateways::<V>(port, &segment.gateways)?;
            if !segment.gateways.is_on_link() {
                ways.push((port, (V::unspecified(), 0), segment.gateways));
            }
        }
        let mut hops = Vec::new();
        for (port, (destination, prefix), via) in ways {
            let first = hops.len();
            let hop = |gateway, rank, router| Hop {
                destination,
                prefix,
                port,
                gateway,
                rank,
                router,
                is_alone: true,
            };
            if via.is_on_link() {
                hops.push(hop(None, first, None));
            }
            for gateway in via.iter() {
                let rank = match via.sharing() {
                    Sharing::InOrder => hops.len(),
                    Sharing::ByFlow => first,
                };
                let router = NextHop {
                    port,
                    address: gateway.into(),
                };
                let known = routers.iter().position(|known| *known == router);
                let place = known.unwrap_or(routers.len());
                if known.is_none() {
                    routers.push(router);
                }
                hops.push(hop(Some(gateway), rank, Some(place)));
            }
        }
        if routers.len() > MOST_ROUTERS {
            return Err(TablesError::TooManyRouters);
        }
        hops.sort_by_key(|hop| std::cmp::Reverse(hop.prefix));
        let networks: Vec<_> = hops
            .iter()
            .map(|hop| (hop.destination, hop.prefix))
            .collect();
        for hop in &mut hops {
            let of_prefix = networks.iter().filter(|(destination, prefix)| {
                *prefix == hop.prefix && V::matches(*destination, hop.destination, hop.prefix)
            });
            hop.is_alone = of_prefix.count() == 1;
        }
        Ok(hops)
    }

    fn check_gateways<V: Family>(
        &self,
        index: PortIndex,
        gateways: &NextHops<V::Address>,
    ) -> Result<(), TablesError> {
        let port = self
            .ports
            .iter()
            .find(|port| port.index == index)
            .ok_or(TablesError::UnknownPort(index.0))?;
        let is_off_link =
            |gateway: &V::Address| !port.covers::<V>(*gateway) && !V::is_link_local(*gateway);
        match gateways.iter().find(is_off_link) {
            Some(gateway) => Err(TablesError::GatewayOffLink {
                gateway: gateway.into(),
                port: index.0,
            }),
            None => Ok(()),
        }
    }
}

fn check_prefix<V: Family>(address: V::Address, prefix: u8) -> Result<(), TablesError> {
    if prefix > V::BITS {
        let address = address.into();
        return Err(TablesError::BadPrefix { address, prefix });
    }
    Ok(())
}

fn add_local_ip<V: Family>(
    net: &mut Net<V>,
    address: V::Address,
    spreads: &[(PortIndex, Spread)],
    ids: &mut Ids,
) -> Result<LocalIp, TablesError> {
    let any: IpAddr = address.into();
    let (port, _) = net.route(address).ok_or(TablesError::LocalIpOffLink(any))?;
    let id = ids
        .local_ip(any)
        .ok_or(TablesError::LimitReached("LocalIPs"))?;
    own(net, address, Owned::LocalIp(id))?;
    let mut rules = spreads.iter().filter(|(index, _)| *index == port);
    let by_port = rules.any(|(_, spread)| spread.by_port.contains(&any));
    net.local_ips.push(LocalIp {
        id,
        address,
        port,
        by_port,
    });
    Ok(LocalIp {
        id,
        address: any,
        port,
        by_port,
    })
}

fn add_retired<V: Family>(
    net: &mut Net<V>,
    address: V::Address,
    role: Retired,
    ids: &mut Ids,
) -> Result<(), TablesError> {
    let route = net.route(address);
    match role {
        _ if net.owned.contains_key(&address) => Ok(()),
        Retired::Vip { arp } => own(net, address, Owned::Vip { arp }),
        Retired::LocalIp => {
            let Some(((port, _), id)) = route.zip(ids.local_ip(address.into())) else {
                return Ok(());
            };
            own(net, address, Owned::LocalIp(id))?;
            net.retired.push(LocalIp {
                id,
                address,
                port,
                by_port: false,
            });
            Ok(())
        }
    }
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

fn own<V: Family>(net: &mut Net<V>, address: V::Address, role: Owned) -> Result<(), TablesError> {
    if !V::is_routable(address) {
        return Err(TablesError::NotAHost(address.into()));
    }
    match (net.owned.get_mut(&address), role) {
        // Services share a VIP; one that wants ARP answered decides for it.
        (Some(Owned::Vip { arp }), Owned::Vip { arp: wanted }) => *arp |= wanted,
        (Some(_), _) => return Err(TablesError::AddressInUse(address.into())),
        (None, _) => {
            net.owned.insert(address, role);
        }
    }
    Ok(())
}

fn add_service<V: Family>(
    tables: &mut Tables,
    config: &ServiceConfig,
    address: V::Address,
    ids: &mut Ids,
    previous: Option<&Tables>,
) -> Result<(), TablesError> {
    let ServiceConfig {
        vip,
        protocol,
        ports,
        ..
    } = *config;
    if ports.first() == 0 {
        return Err(TablesError::PortZero(SocketAddr::new(vip, 0)));
    }
    own(V::net_mut(tables), address, Owned::Vip { arp: config.arp })?;
    let id = ids
        .service(vip, protocol, ports)
        .ok_or(TablesError::LimitReached("services"))?;
    let net = V::net_mut(tables);
    let entered = match ports.single() {
        Some(port) => match net.by_address.insert((address, port, protocol), id) {
            None => Ok(()),
            Some(_) => Err(ports),
        },
        None => {
            let ranges = net.by_range.entry((address, protocol)).or_default();
            ranges.add(ports, id)
        }
    };
    entered.map_err(|other| TablesError::DuplicateService {
        vip,
        protocol,
        ports,
        other,
    })?;
    let mut config = config.clone();
    config.targets.sort_by_key(|target| target.address);
    if let Some(pair) = config
        .targets
        .windows(2)
        .find(|pair| pair[0].address == pair[1].address)
    {
        return Err(TablesError::DuplicateTarget {
            vip,
            ports,
            target: pair[0].address,
        });
    }
    if config.targets.len() >= usize::from(u16::MAX) {
        return Err(TablesError::TooManyTargets(config.targets.len()));
    }
    let mut targets = Vec::with_capacity(config.targets.len());
    for target in &config.targets {
        let target_id = ids
            .target(id, target.address)
            .ok_or(TablesError::LimitReached("targets"))?;
        if target.address.port() == 0 && ports.single().is_some() {
            return Err(TablesError::PortZero(target.address));
        }
        let target_ip = V::address(target.address.ip()).ok_or(TablesError::MixedFamilies {
            vip,
            ports,
            target: target.address,
        })?;
        if !V::is_routable(target_ip) {
            return Err(TablesError::NotAHost(target.address.ip()));
        }
        let (egress, next_hop) = tables
            .net::<V>()
            .route(target_ip)
            .ok_or(TablesError::NoRoute(target.address))?;
        let on_link = next_hop == target_ip;
        check_mode::<V>(tables, &config, target.address, egress, on_link)?;
        place(
            &mut tables.targets,
            target_id.0,
            Target {
                id: target_id,
                service: id,
                config: *target,
                port: egress,
            },
        );
        targets.push(target_id);
    }
    let takes_flows = |target: &TargetId| {
        let target = tables.target(*target);
        target.is_some_and(|target| target.config.takes_flows())
    };
    let eligible: Vec<TargetId> = targets.iter().copied().filter(takes_flows).collect();
    let plan = match previous.and_then(|previous| previous.service(id).zip(Some(previous))) {
        Some((before, previous)) if same_layout(tables, &eligible, &config, previous, before) => {
            Arc::clone(&before.plan)
        }
        _ => schedule::plan(
            config.scheduler,
            eligible.iter().filter_map(|id| tables.target(*id)),
        ),
    };
    let number = id.0 as usize;
    if tables.timeouts.len() <= number {
        tables.timeouts.resize(number + 1, tables.default_timeouts);
    }
    tables.timeouts[number] = config.timeouts.by_state();
    place(
        &mut tables.services,
        id.0,
        Service {
            id,
            config,
            targets,
            eligible,
            plan,
        },
    );
    Ok(())
}

/// Whether a target can be reached in the mode of its service.
fn check_mode<V: Family>(
    tables: &Tables,
    config: &ServiceConfig,
    target: SocketAddr,
    egress: PortIndex,
    on_link: bool,
) -> Result<(), TablesError> {
    let port = egress.0;
    if config.mode == Mode::FullNat {
        let mut local_ips = tables.net::<V>().local_ips_on(egress);
        return match local_ips.next() {
            Some(_) => Ok(()),
            None => Err(TablesError::NoLocalIp { target, port }),
        };
    }
    if target.port() != config.ports.kept_by_target() {
        return Err(TablesError::PortDiffers {
            target,
            ports: config.ports,
        });
    }
    if config.mode == Mode::Direct && !on_link {
        return Err(TablesError::TargetOffLink { target, port });
    }
    let mtu = tables.port(egress).map_or(0, |port| port.mtu);
    if config.mode == Mode::Tunnel && usize::from(mtu) < V::HEADER + V::SMALLEST_MTU {
        return Err(TablesError::LinkTooSmall { target, port, mtu });
    }
    Ok(())
}

fn next_hops(tables: &Tables) -> Vec<(PortIndex, IpAddr)> {
    let routers = tables.routers.iter().map(|hop| (hop.port, hop.address));
    let targets = tables
        .services()
        .flat_map(|service| &service.eligible)
        .filter_map(|id| tables.target(*id));
    let targets = targets.filter_map(|target| tables.route(target.config.address.ip()));
    let mut seen = HashSet::new();
    routers
        .chain(targets)
        .filter(|hop| seen.insert(*hop))
        .collect()
}

/// Whether the scheduler of a service would come out as in the snapshot before.
fn same_layout(
    tables: &Tables,
    eligible: &[TargetId],
    config: &ServiceConfig,
    previous: &Tables,
    before: &Service,
) -> bool {
    let weight =
        |tables: &Tables, id: TargetId| tables.target(id).map(|target| target.config.weight);
    before.config.scheduler == config.scheduler
        && before.eligible == eligible
        && eligible
            .iter()
            .all(|id| weight(tables, *id) == weight(previous, *id))
}

fn place<T>(slots: &mut Vec<Option<T>>, number: u32, value: T) {
    let number = number as usize;
    if slots.len() <= number {
        slots.resize_with(number + 1, || None);
    }
    slots[number] = Some(value);
}
