//! Everything that forwards, put together from the configuration: EAL, ports, workers and what connects them.

use std::io::Read;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use dataplane::{Counters, Learned, Living, MacAddr, Now, PortIndex, Secret, Tables};
use tokio::sync::mpsc;

use crate::bond::Bond;
use crate::config::{Config, PortConfig};
use crate::devices::{LostInterface, carrier, device, devices, exception_device, interface, mtu};
use crate::dpdk::{
    Eal, EalSettings, Ended, Interface, Lcore, Link, Memory, Pool, Port, PortSettings, PortStats,
    RssKey, RxQueue, StartedPort, TxQueue, ring,
};
use crate::error::Error;
use crate::nic::Nic;
use crate::sizes::{EXCEPTION_DESCRIPTORS, REDIRECT_RING, Sizes};
use crate::worker::{
    self, Exception, Lane, News, Question, Transmit, Vlan, WorkerParts, WorkerState,
};

/// Lessons and questions that may wait for a worker.
const LESSONS: usize = 1024;
const INQUIRIES: usize = 4;

/// A node's data path, ready to be started.
pub struct Forwarder {
    /// Emptied when it stops.
    ports: Mutex<Vec<RunningPort>>,
    workers: Vec<RunningWorker>,
    tables: Arc<ArcSwap<Tables>>,
    counters: Arc<Counters>,
    pool: Pool,
    eal: Eal,
}

struct RunningPort {
    port: StartedPort,
    nic: Nic,
    exception: Option<StartedPort>,
    vlan: Option<Vlan>,
    /// The kernel's interface below it, where its driver does not watch the link.
    interface: Option<Interface>,
    bond: Option<Bond>,
}

struct RunningWorker {
    state: Arc<WorkerState>,
    inquiries: SyncSender<Question>,
    /// Taken when it is joined.
    lcore: Mutex<Option<Lcore>>,
}

/// A port as its driver sees it.
#[derive(Debug, Clone)]
pub struct PortView {
    /// What its NIC is and does.
    pub nic: Nic,
    /// Its link.
    pub link: Link,
    /// Its counters.
    pub stats: PortStats,
    /// Of a bond: its members by name, and their links.
    pub members: Vec<(String, Link)>,
    /// Interfaces of the kernel that were deleted or moved from under it, or under members of it, by their configured names.
    pub lost_interfaces: Vec<String>,
}

/// Whether frames can pass a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortLink {
    pub(crate) up: bool,
    /// Interfaces of the kernel that were taken from under it.
    pub(crate) lost: Vec<LostInterface>,
}

impl Forwarder {
    /// Starts EAL, the ports and the workers. `first` makes the first snapshot once the ports' NICs are known; events of the
    /// workers go to `news`.
    ///
    /// # Errors
    /// What DPDK refused, or what `first` returned.
    pub fn start(
        config: &Config,
        first: impl FnOnce(&[Nic]) -> Result<Tables, Error>,
        news: mpsc::Sender<News>,
    ) -> Result<Forwarder, Error> {
        let secret = Secret::new(random()?);
        let key = RssKey(random()?);
        let sizes = Sizes::of(config);
        let eal = Eal::start(&eal_settings(config, &sizes))?;
        let pool = Pool::new(&eal, "frames", sizes.frames, sizes.room)?;
        let mut ports = Vec::new();
        for port in &config.ports {
            ports.push(RunningPort::start(
                &eal,
                port,
                (config.workers.count(), key),
                &pool,
            )?);
        }
        let nics: Vec<Nic> = ports.iter().map(|port| port.nic.clone()).collect();
        let tables = Arc::new(ArcSwap::from_pointee(first(&nics)?));

        let count = config.workers.count();
        let limits = config.limits();
        let counters = Arc::new(Counters::new(count, &limits));
        let mut lanes = lanes(config, &mut ports);
        let mut outboxes = Vec::new();
        let mut inboxes = Vec::new();
        let mut teachers = Vec::new();
        let mut classes = Vec::new();
        for index in 0..count {
            let (outbox, inbox) = ring(&eal, &format!("redirect{index}"), REDIRECT_RING)?;
            outboxes.push(outbox);
            inboxes.push(inbox);
            let (teacher, class) = sync_channel::<Learned>(LESSONS);
            teachers.push(teacher);
            classes.push(class);
        }
        let mut workers = Vec::new();
        for (index, (inbox, lessons)) in (0..count).zip(inboxes.into_iter().zip(classes)) {
            let state = Arc::new(WorkerState::default());
            let (ask, inquiries) = sync_channel(INQUIRIES);
            let others = teachers
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != usize::from(index));
            let (limits, secret, counters) = (limits.clone(), secret.clone(), counters.clone());
            let (pool, tsc, tables, poll) =
                (pool.clone(), eal.tsc(), tables.clone(), config.workers.poll);
            let (lanes, outboxes, news, shown) = (
                lanes.remove(0),
                outboxes.clone(),
                news.clone(),
                state.clone(),
            );
            let peers = others.map(|(_, teacher)| teacher.clone()).collect();
            // Lcore 0 is the control side's. A worker makes its tables where it runs, so that they lie in memory near it.
            let lcore = Lcore::launch(&eal, u32::from(index) + 1, move || {
                let dataplane = dataplane::Worker::new(index, count, &limits, secret, counters);
                let state = shown;
                worker::run(WorkerParts {
                    index,
                    dataplane,
                    lanes,
                    inbox,
                    outboxes,
                    lessons,
                    peers,
                    news,
                    inquiries,
                    pool,
                    tsc,
                    tables,
                    state,
                    poll,
                });
            })?;
            workers.push(RunningWorker {
                state,
                inquiries: ask,
                lcore: Mutex::new(Some(lcore)),
            });
        }
        Ok(Forwarder {
            ports: Mutex::new(ports),
            workers,
            tables,
            counters,
            pool,
            eal,
        })
    }

    /// Puts a snapshot in force. Workers read it from their next round on. Returns the one before.
    pub fn publish(&self, tables: Arc<Tables>) -> Arc<Tables> {
        self.tables.swap(tables)
    }

    /// The snapshot in force.
    pub fn tables(&self) -> Arc<Tables> {
        self.tables.load_full()
    }

    /// Which routers of a snapshot answer; none until the workers run on it.
    pub(crate) fn living(&self, tables: &Tables) -> Option<Living> {
        match tables.routers().is_empty() {
            true => Some(Living::default()),
            false => self.counters.living(tables),
        }
    }

    /// The data plane's counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The workers' pulses and counters, by number.
    pub fn worker_states(&self) -> Vec<Arc<WorkerState>> {
        self.workers
            .iter()
            .map(|worker| worker.state.clone())
            .collect()
    }

    /// Where workers can be asked, by number.
    pub fn questions(&self) -> Vec<SyncSender<Question>> {
        self.workers
            .iter()
            .map(|worker| worker.inquiries.clone())
            .collect()
    }

    /// The ports now, in the order of the configuration.
    pub fn ports(&self) -> Vec<PortView> {
        let view = |port: &RunningPort| PortView {
            nic: port.nic.clone(),
            link: port.link(),
            stats: port.port.stats(),
            members: port.bond.iter().flat_map(Bond::links).collect(),
            lost_interfaces: port.lost().map(|lost| lost.name).collect(),
        };
        locked(&self.ports).iter().map(view).collect()
    }

    /// Asks NICs that take rules for such on LocalIPs that `config` adds. What they do then, in the order of the configuration. Rules stay
    /// though `config` is refused after that: the node uses those LocalIPs for nothing, and a configuration that has them again finds its
    /// rules. Who asks for [`Forwarder::ports`] or its links meanwhile waits for the drivers.
    pub fn follow(&self, config: &Config) -> Vec<Nic> {
        let mut ports = locked(&self.ports);
        for (port, config_of) in ports.iter_mut().zip(&config.ports) {
            let RunningPort { port, nic, .. } = port;
            nic.follow(port, config_of, config.workers.count());
        }
        ports.iter().map(|port| port.nic.clone()).collect()
    }

    /// Whether each port's link is up, in the order of the configuration. Bonds go over to a member that has one.
    pub(crate) fn links(&self) -> Vec<PortLink> {
        let link = |port: &RunningPort| PortLink {
            up: port.link().up,
            lost: port.lost().collect(),
        };
        locked(&self.ports).iter().map(link).collect()
    }

    /// The CPU cycles that pass in so many nanoseconds.
    pub fn cycles(&self, nanoseconds: u64) -> u64 {
        self.eal.tsc().cycles(nanoseconds)
    }

    /// The time on the workers' clock.
    pub fn now(&self) -> Now {
        self.eal.tsc().now()
    }

    /// Frame buffers in use.
    pub fn frames_in_use(&self) -> u32 {
        self.pool.in_use()
    }

    /// Workers whose loop has ended, by number.
    pub fn ended_workers(&self) -> Vec<usize> {
        let ended =
            |worker: &RunningWorker| locked(&worker.lcore).as_ref().is_none_or(Lcore::has_ended);
        self.workers
            .iter()
            .enumerate()
            .filter(|(_, worker)| ended(worker))
            .map(|(index, _)| index)
            .collect()
    }

    /// Stops the workers, then the ports.
    ///
    /// # Errors
    /// The first worker that had panicked; everything is stopped all the same.
    pub fn stop(&self) -> Result<(), Error> {
        for worker in &self.workers {
            worker.state.stop();
        }
        let mut panicked = None;
        for (index, worker) in self.workers.iter().enumerate() {
            let ended = locked(&worker.lcore).take().map(Lcore::join);
            if ended == Some(Ended::Panicked) {
                panicked.get_or_insert(index as u16);
            }
        }
        locked(&self.ports).clear();
        match panicked {
            Some(index) => Err(Error::WorkerPanicked(index)),
            None => Ok(()),
        }
    }
}

/// None of the values behind these locks is ever left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunningPort {
    fn start(
        eal: &Eal,
        config: &PortConfig,
        (workers, key): (u16, RssKey),
        pool: &Pool,
    ) -> Result<RunningPort, Error> {
        let settings = PortSettings {
            queues: config.queues,
            mtu: mtu(config),
            descriptors: config.descriptors,
            rss_key: key,
        };
        let port = Port::open(eal, &device(config))?.start(settings, pool)?;
        let exception = match &config.exception {
            None => None,
            Some(device) => {
                let settings = PortSettings {
                    queues: 1,
                    mtu: Some(config.mtu),
                    descriptors: EXCEPTION_DESCRIPTORS,
                    rss_key: key,
                };
                let device = exception_device(device, MacAddr(port.mac()));
                eal.probe(&device)?;
                Some(Port::open(eal, &device)?.start(settings, pool)?)
            }
        };
        let interface = interface(&config.device)?;
        let bond = match config.members.is_empty() {
            true => None,
            false => Some(Bond::of(eal, config)?),
        };
        let nic = Nic::of(&port, config, workers);
        Ok(RunningPort {
            port,
            nic,
            exception,
            vlan: config.vlan,
            interface,
            bond,
        })
    }

    /// Its link; of a bond, whether a member has one, by which frames go from now on.
    fn link(&self) -> Link {
        match &self.bond {
            None => carrier(self.interface.as_ref(), self.port.link()),
            Some(bond) => bond.look(&self.port),
        }
    }

    /// The interfaces that were taken from under it, or under its members.
    fn lost(&self) -> impl Iterator<Item = LostInterface> {
        let own = self.interface.iter().filter_map(LostInterface::of);
        own.chain(self.bond.iter().flat_map(Bond::lost))
    }
}

/// Deals the queues out: queue `n` of each port to worker `n`, which alone polls it. Workers beyond a port's queues transmit by turns.
fn lanes(config: &Config, ports: &mut [RunningPort]) -> Vec<Vec<Lane>> {
    let count = usize::from(config.workers.count());
    let mut lanes: Vec<Vec<Lane>> = (0..count).map(|_| Vec::new()).collect();
    for (index, port) in ports.iter_mut().enumerate() {
        let dpdk_port = port.port.id();
        let mut queues = Dealer::new(port.port.take_queues(), count);
        let mut exceptions = port
            .exception
            .as_mut()
            .map(|exception| Dealer::new(exception.take_queues(), count));
        for (number, lanes) in lanes.iter_mut().enumerate() {
            let (receive, transmit) = queues.deal(number);
            let vlan = port.vlan;
            let exception = exceptions
                .as_mut()
                .map(|exceptions| exceptions.deal(number));
            let exception = exception.map(|(receive, transmit)| Exception { receive, transmit });
            lanes.push(Lane {
                port: PortIndex(index as u16),
                dpdk_port,
                receive,
                transmit: transmit.tagged(vlan),
                vlan,
                exception,
            });
        }
    }
    lanes
}

enum Dealer {
    Enough(std::vec::IntoIter<(RxQueue, TxQueue)>),
    Few {
        receive: std::vec::IntoIter<RxQueue>,
        transmit: Vec<Arc<Mutex<TxQueue>>>,
    },
}

impl Dealer {
    fn new(queues: Vec<(RxQueue, TxQueue)>, workers: usize) -> Dealer {
        if queues.len() >= workers {
            return Dealer::Enough(queues.into_iter());
        }
        let (receive, transmit): (Vec<_>, Vec<_>) = queues.into_iter().unzip();
        let transmit = transmit
            .into_iter()
            .map(|queue| Arc::new(Mutex::new(queue)))
            .collect();
        Dealer::Few {
            receive: receive.into_iter(),
            transmit,
        }
    }

    fn deal(&mut self, worker: usize) -> (Option<RxQueue>, Transmit) {
        match self {
            // There are as many as workers, each dealt once.
            Dealer::Enough(queues) => match queues.next() {
                Some((receive, transmit)) => (Some(receive), Transmit::own(transmit)),
                None => unreachable!("a queue for each worker, as counted in `new`"),
            },
            Dealer::Few { receive, transmit } => (
                receive.next(),
                Transmit::shared(transmit[worker % transmit.len()].clone()),
            ),
        }
    }
}

fn eal_settings(config: &Config, sizes: &Sizes) -> EalSettings {
    let section = &config.eal;
    let memory = match section.huge_pages {
        true => Memory::HugePages,
        false => Memory::Ordinary(
            section
                .memory
                .map_or(sizes.mebibytes, |memory| (memory.bytes() >> 20) as u32),
        ),
    };
    // Exception devices are added once their ports run: see `exception_device`.
    let devices = config.ports.iter().flat_map(devices).collect();
    EalSettings {
        file_prefix: section
            .file_prefix
            .clone()
            .unwrap_or_else(|| format!("weir-{}", config.node.id)),
        memory,
        devices,
        workers: config.workers.cpus.clone(),
        extra: section.args.clone(),
    }
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut random = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(Error::Random)?;
    Ok(random)
}
