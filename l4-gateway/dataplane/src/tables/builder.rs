//! From checked configuration and target states to a snapshot. Everything that could make a snapshot wrong is an error here.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Hop, LocalIp, Owned, Tables, lookup};
use crate::ids::{Ids, TargetId};
use crate::port::{Port, PortIndex, Route};
use crate::schedule;
use crate::service::{Protocol, Service, ServiceConfig, Target, Timeouts};

/// Collects what a snapshot is made of.
#[derive(Clone, Debug, Default)]
pub struct TablesBuilder {
    ports: Vec<Port>,
    routes: Vec<Route>,
    local_ips: Vec<Ipv4Addr>,
    services: Vec<ServiceConfig>,
}

/// Why a snapshot can't be built. The one in use stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// Two ports of one number.
    #[error("port {0} is given twice")]
    DuplicatePort(u16),
    /// A port number above 255.
    #[error("port {0} is out of range: ports are numbered 0 to 255")]
    PortOutOfRange(u16),
    /// A prefix longer than an address.
    #[error("prefix length {prefix} of {address} is longer than 32")]
    BadPrefix {
        /// The address given with it.
        address: Ipv4Addr,
        /// The length given.
        prefix: u8,
    },
    /// A port's or route's gateway isn't on the port's segment.
    #[error("gateway {gateway} isn't in the prefix of port {port}, so it can't be reached")]
    GatewayOffLink {
        /// The gateway given.
        gateway: Ipv4Addr,
        /// The port it was given for.
        port: u16,
    },
    /// A route over a port that doesn't exist.
    #[error("a route names port {0}, which isn't given")]
    UnknownPort(u16),
    /// One address in two roles, or twice in one.
    #[error("{0} is given twice, or as two of port address, LocalIP and VIP")]
    AddressInUse(Ipv4Addr),
    /// A LocalIP that no port and no route covers.
    #[error(
        "LocalIP {0} is in no port's prefix and no route leads to it, so replies to it can't arrive"
    )]
    LocalIpOffLink(Ipv4Addr),
    /// An address no host can have.
    #[error("{0} can't be a host's address")]
    NotAHost(Ipv4Addr),
    /// Two services at the same address.
    #[error("service {vip}:{port}/{protocol:?} is given twice")]
    DuplicateService {
        /// Its VIP.
        vip: Ipv4Addr,
        /// Its protocol.
        protocol: Protocol,
        /// Its port.
        port: u16,
    },
    /// A target twice in one service.
    #[error("target {target} is given twice for service {vip}:{port}")]
    DuplicateTarget {
        /// The service's VIP.
        vip: Ipv4Addr,
        /// The service's port.
        port: u16,
        /// The target.
        target: SocketAddrV4,
    },
    /// A target port or service port of 0.
    #[error("port 0 can't be served ({0})")]
    PortZero(SocketAddrV4),
    /// A target no route leads to.
    #[error("no route leads to target {0}")]
    NoRoute(SocketAddrV4),
    /// A target on a port without LocalIP.
    #[error("target {target} is reached over port {port}, which has no LocalIP")]
    NoLocalIp {
        /// The target.
        target: SocketAddrV4,
        /// The port that leads to it.
        port: u16,
    },
    /// More targets than a scheduler's layout can name.
    #[error("a service has {0} targets; 65534 is the most")]
    TooManyTargets(usize),
    /// More names than the workers were made for.
    #[error("more {0} than the limit given at start; raise it and restart")]
    LimitReached(&'static str),
}

impl TablesBuilder {
    /// Adds a port.
    pub fn port(&mut self, port: Port) -> &mut Self {
        self.ports.push(port);
        self
    }

    /// Adds a route.
    pub fn route(&mut self, route: Route) -> &mut Self {
        self.routes.push(route);
        self
    }

    /// Adds a LocalIP. It is used on the port that a route to it leads to.
    pub fn local_ip(&mut self, address: Ipv4Addr) -> &mut Self {
        self.local_ips.push(address);
        self
    }

    /// Adds a service.
    pub fn service(&mut self, service: ServiceConfig) -> &mut Self {
        self.services.push(service);
        self
    }

    /// Builds the snapshot. Scheduler layouts that didn't change are taken over from `previous`.
    ///
    /// # Errors
    /// The first thing found wrong. Numbers given out meanwhile stay given out until [`Ids::reclaim`].
    pub fn build(&self, ids: &mut Ids, previous: Option<&Tables>) -> Result<Tables, TablesError> {
        let routes = self.routes()?;
        let mut owned = HashMap::new();
        for port in &self.ports {
            own(
                &mut owned,
                port.address,
                Owned::Port {
                    answers: port.answers,
                },
            )?;
        }
        let local_ips = self.local_ips(ids, &routes, &mut owned)?;
        let mut tables = Tables {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            ports: self.ports.clone(),
            routes,
            next_hops: Vec::new(),
            owned,
            local_ips,
            default_timeouts: Timeouts::default().by_state(),
            timeouts: Vec::new(),
            services: Vec::new(),
            targets: Vec::new(),
            by_address: HashMap::new(),
        };
        for config in &self.services {
            add_service(&mut tables, config, ids, previous)?;
        }
        tables.next_hops = next_hops(&tables);
        Ok(tables)
    }

    /// On-link prefixes, routes and gateways as one list, longest prefix first.
    fn routes(&self) -> Result<Vec<Hop>, TablesError> {
        let mut indices = HashSet::new();
        let mut routes = Vec::new();
        for port in &self.ports {
            if port.index.0 > 255 {
                return Err(TablesError::PortOutOfRange(port.index.0));
            }
            if !indices.insert(port.index) {
                return Err(TablesError::DuplicatePort(port.index.0));
            }
            if port.prefix > 32 {
                return Err(TablesError::BadPrefix {
                    address: port.address,
                    prefix: port.prefix,
                });
            }
            routes.push(Hop {
                destination: port.address,
                prefix: port.prefix,
                port: port.index,
                gateway: None,
            });
        }
        for route in &self.routes {
            if route.prefix > 32 {
                return Err(TablesError::BadPrefix {
                    address: route.destination,
                    prefix: route.prefix,
                });
            }
            self.check_gateway(route.port, route.gateway)?;
            let Route {
                destination,
                prefix,
                port,
                gateway,
            } = *route;
            routes.push(Hop {
                destination,
                prefix,
                port,
                gateway,
            });
        }
        for port in &self.ports {
            self.check_gateway(port.index, port.gateway)?;
            if port.gateway.is_some() {
                routes.push(Hop {
                    destination: Ipv4Addr::UNSPECIFIED,
                    prefix: 0,
                    port: port.index,
                    gateway: port.gateway,
                });
            }
        }
        routes.sort_by_key(|hop| std::cmp::Reverse(hop.prefix));
        Ok(routes)
    }

    fn check_gateway(
        &self,
        index: PortIndex,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), TablesError> {
        let port = self
            .ports
            .iter()
            .find(|port| port.index == index)
            .ok_or(TablesError::UnknownPort(index.0))?;
        match gateway {
            Some(gateway) if !port.covers(gateway) => Err(TablesError::GatewayOffLink {
                gateway,
                port: index.0,
            }),
            _ => Ok(()),
        }
    }

    fn local_ips(
        &self,
        ids: &mut Ids,
        routes: &[Hop],
        owned: &mut HashMap<Ipv4Addr, Owned>,
    ) -> Result<Vec<LocalIp>, TablesError> {
        let mut local_ips = Vec::with_capacity(self.local_ips.len());
        for &address in &self.local_ips {
            let (port, _) = lookup(routes, address).ok_or(TablesError::LocalIpOffLink(address))?;
            let id = ids
                .local_ip(address)
                .ok_or(TablesError::LimitReached("LocalIPs"))?;
            own(owned, address, Owned::LocalIp(id))?;
            local_ips.push(LocalIp { id, address, port });
        }
        Ok(local_ips)
    }
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

fn own(
    owned: &mut HashMap<Ipv4Addr, Owned>,
    address: Ipv4Addr,
    role: Owned,
) -> Result<(), TablesError> {
    if !is_host(address) {
        return Err(TablesError::NotAHost(address));
    }
    match (owned.get_mut(&address), role) {
        // Services share a VIP; one that wants ARP answered decides for it.
        (Some(Owned::Vip { arp }), Owned::Vip { arp: wanted }) => *arp |= wanted,
        (Some(_), _) => return Err(TablesError::AddressInUse(address)),
        (None, _) => {
            owned.insert(address, role);
        }
    }
    Ok(())
}

/// Whether a packet can come from or go to this one host.
pub(crate) fn is_host(address: Ipv4Addr) -> bool {
    !(address.octets()[0] == 0 || address.is_loopback() || address.octets()[0] >= 224)
}

fn add_service(
    tables: &mut Tables,
    config: &ServiceConfig,
    ids: &mut Ids,
    previous: Option<&Tables>,
) -> Result<(), TablesError> {
    let ServiceConfig {
        vip,
        protocol,
        port,
        ..
    } = *config;
    if port == 0 {
        return Err(TablesError::PortZero(SocketAddrV4::new(vip, port)));
    }
    own(&mut tables.owned, vip, Owned::Vip { arp: config.arp })?;
    let id = ids
        .service(vip, protocol, port)
        .ok_or(TablesError::LimitReached("services"))?;
    if tables
        .by_address
        .insert((vip, port, protocol), id)
        .is_some()
    {
        return Err(TablesError::DuplicateService {
            vip,
            protocol,
            port,
        });
    }
    let mut config = config.clone();
    config.targets.sort_by_key(|target| target.address);
    if let Some(pair) = config
        .targets
        .windows(2)
        .find(|pair| pair[0].address == pair[1].address)
    {
        return Err(TablesError::DuplicateTarget {
            vip,
            port,
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
        if target.address.port() == 0 {
            return Err(TablesError::PortZero(target.address));
        }
        if !is_host(*target.address.ip()) {
            return Err(TablesError::NotAHost(*target.address.ip()));
        }
        let (egress, _) = tables
            .route(*target.address.ip())
            .ok_or(TablesError::NoRoute(target.address))?;
        if !tables.local_ips.iter().any(|local| local.port == egress) {
            return Err(TablesError::NoLocalIp {
                target: target.address,
                port: egress.0,
            });
        }
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
        tables.target(*target).is_some_and(|target| {
            target.config.up && !target.config.draining && target.config.weight > 0
        })
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

fn next_hops(tables: &Tables) -> Vec<(PortIndex, Ipv4Addr)> {
    let gateways = tables
        .routes
        .iter()
        .filter_map(|hop| hop.gateway.map(|gateway| (hop.port, gateway)));
    let targets = tables
        .services()
        .flat_map(|service| &service.eligible)
        .filter_map(|id| tables.target(*id));
    let targets = targets.filter_map(|target| tables.route(*target.config.address.ip()));
    let mut seen = HashSet::new();
    gateways
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
