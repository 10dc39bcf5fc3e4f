//! DPDK's environment: memory, threads, drivers. One per process.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{DpdkError, Tsc, runtime_directory};

/// What EAL is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalSettings {
    /// Keeps the runtime files of two nodes on one host apart.
    pub file_prefix: String,
    /// Where memory comes from.
    pub memory: Memory,
    /// The devices to probe; no others are.
    pub devices: Vec<Device>,
    /// One worker lcore each, numbered from 1: the CPU it is pinned to, or none to let it run on any that the process may use.
    pub workers: Vec<Option<u32>>,
    /// Further arguments, as EAL takes them.
    pub extra: Vec<String>,
}

/// Where EAL's memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Hugepages of the host, as many as are needed.
    HugePages,
    /// Ordinary pages, this many MiB, taken at the start.
    Ordinary(u32),
}

/// A device string as DPDK takes it: an address on a bus, or a virtual device, each with optional arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    text: String,
    on_bus: bool,
}

impl Device {
    /// The name by which DPDK knows the port that the device becomes.
    pub fn name(&self) -> &str {
        self.text.split(',').next().unwrap_or_default()
    }

    /// The driver of a virtual device, e.g. `net_af_packet`; `None` on a bus, where the hardware decides.
    pub fn driver(&self) -> Option<&str> {
        (!self.on_bus).then(|| {
            self.name()
                .trim_end_matches(|last: char| last.is_ascii_digit())
        })
    }

    /// What DPDK would take for the same device: PCI addresses can be written in several ways.
    pub fn identity(&self) -> String {
        let name = self.name();
        let address = name.strip_prefix("pci:").unwrap_or(name);
        match address.matches(':').count() {
            1 if self.on_bus && is_pci_address(address) => {
                format!("0000:{}", address.to_ascii_lowercase())
            }
            2 if self.on_bus && is_pci_address(address) => address.to_ascii_lowercase(),
            _ => name.to_owned(),
        }
    }

    /// Its arguments in order, each with its value.
    pub fn arguments(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let arguments = self.text.split(',').skip(1);
        arguments.map(|argument| match argument.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (argument, None),
        })
    }

    /// The value of an argument: `argument("iface")` of `net_af_packet0,iface=ext0` is `ext0`.
    pub fn argument(&self, key: &str) -> Option<&str> {
        let mut arguments = self.arguments();
        arguments.find_map(|(name, value)| value.filter(|_| name == key))
    }

    /// The same device with one more argument.
    pub fn with_argument(mut self, key: &str, value: impl fmt::Display) -> Device {
        self.text.push_str(&format!(",{key}={value}"));
        self
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        let name = text.split(',').next().unwrap_or_default();
        let on_bus = ["auxiliary:", "pci:", "vmbus:"]
            .iter()
            .any(|bus| name.starts_with(bus))
            || is_pci_address(name);
        let virtual_device = ["net_", "virtio_user", "eth_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if text
            .chars()
            .any(|character| character.is_whitespace() || character.is_control())
        {
            Err("a device string has no blanks".into())
        } else if text.contains(';') {
            Err(format!(
                "write `,` between arguments: \"{}\"",
                text.replace(';', ",")
            ))
        } else if text.split(',').any(str::is_empty) {
            Err("an argument is empty: leave its `,` out".into())
        } else if like_pci(name) && !is_pci_address(name.strip_prefix("pci:").unwrap_or(name)) {
            Err("of a PCI address, the device goes up to 1f and the function up to 7".into())
        } else if on_bus || virtual_device {
            Ok(Device {
                text: text.into(),
                on_bus,
            })
        } else {
            Err("a PCI address, or a virtual device with its arguments".into())
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.text)
    }
}

/// `[dddd:]bb:dd.f`, hexadecimal: 32 devices on a bus, 8 functions of a device.
fn is_pci_address(name: &str) -> bool {
    let hex = |text: &str, digits: usize, most: u32| {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u32::from_str_radix(text, 16);
        text.len() == digits && is_hex && value.is_ok_and(|value| value <= most)
    };
    let Some((front, function)) = name.rsplit_once('.') else {
        return false;
    };
    let parts: Vec<&str> = front.split(':').collect();
    let (domain, bus, device) = match parts.as_slice() {
        [domain, bus, device] => (*domain, *bus, *device),
        [bus, device] => ("0000", *bus, *device),
        _ => return false,
    };
    hex(domain, 4, 0xffff) && hex(bus, 2, 0xff) && hex(device, 2, 0x1f) && hex(function, 1, 7)
}

/// Whether a PCI address was meant.
fn like_pci(name: &str) -> bool {
    let hexadecimal = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
    name.starts_with("pci:") || (name.contains(':') && name.bytes().all(hexadecimal))
}

impl EalSettings {
    /// EAL's command line, the program's name first.
    pub fn arguments(&self) -> Vec<String> {
        let allowed = allowed_cpus();
        let free: Vec<u32> = allowed
            .iter()
            .copied()
            .filter(|cpu| !self.workers.contains(&Some(*cpu)))
            .collect();
        let floating = if free.is_empty() { &allowed } else { &free };
        let floating = floating
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",");
        // The control threads are on lcore 0, as EAL places the thread that starts it: anywhere but on a worker's own CPU.
        let mut lcores = format!("0@({floating})");
        for (index, cpu) in self.workers.iter().enumerate() {
            let place = cpu.map_or_else(|| format!("({floating})"), |cpu| cpu.to_string());
            lcores.push_str(&format!(",{}@{place}", index + 1));
        }
        let mut arguments = vec!["l4-gateway".into(), "--lcores".into(), lcores];
        arguments.push(format!("--file-prefix={}", self.file_prefix));
        // Neither way leaves files behind, however the process ends, and hugepages need not be mounted.
        match self.memory {
            Memory::Ordinary(mebibytes) => arguments.extend([
                "--no-huge".into(),
                "-m".into(),
                mebibytes.to_string(),
                "--no-shconf".into(),
            ]),
            Memory::HugePages => arguments.push("--in-memory".into()),
        }
        if !self.devices.iter().any(|device| device.on_bus) {
            arguments.push("--no-pci".into());
        }
        for device in &self.devices {
            arguments.push(if device.on_bus {
                format!("--allow={device}")
            } else {
                format!("--vdev={device}")
            });
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// The running environment. Memory, ports, pools and rings share it; it is cleaned up when the last of them has gone.
pub struct Eal {
    environment: Arc<Environment>,
    tsc: Tsc,
}

impl Eal {
    /// Starts EAL in this process.
    ///
    /// # Errors
    /// When EAL refuses (no hugepages, unknown device, no permission; details are in the log), or was started before.
    pub fn start(settings: &EalSettings) -> Result<Eal, DpdkError> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        let what = || "EAL initialisation".to_owned();
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(DpdkError::new(
                what(),
                "it can be started once in a process",
            ));
        }
        let strings = settings
            .arguments()
            .into_iter()
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| DpdkError::new(what(), "an argument holds a zero byte"))?;
        // SAFETY: `to_tracing` is a plain function that stays valid and keeps nothing it is given.
        let status = unsafe { dpdk_sys::weir_log_to(Some(to_tracing)) };
        if status != 0 {
            return Err(DpdkError::from_status("redirecting DPDK's log", status));
        }
        runtime_directory::remove_at_exit();
        // EAL keeps pointers into its arguments and permutes the array, so both stay for the life of the process.
        let pointers: Vec<*mut c_char> = strings.into_iter().map(CString::into_raw).collect();
        let count = pointers.len() as c_int;
        let pointers = Vec::leak(pointers);
        // SAFETY: `pointers` are `count` writable C strings that are never freed.
        let status = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
        runtime_directory::sweep();
        if status < 0 {
            let hint = match settings.memory {
                Memory::HugePages => {
                    "; the log says more. Are there hugepages (/proc/sys/vm/nr_hugepages)?"
                }
                Memory::Ordinary(_) => "; the log says more",
            };
            return Err(DpdkError::new(what(), describe(errno()) + hint));
        }
        Ok(Eal {
            environment: Arc::new(Environment {
                pools: Mutex::new(Vec::new()),
            }),
            tsc: Tsc::start(),
        })
    }

    /// Adds a device that was not among those EAL was started with.
    ///
    /// # Errors
    /// When its driver refuses.
    pub fn probe(&self, device: &Device) -> Result<(), DpdkError> {
        let what = || format!("device {device}");
        let arguments = CString::new(device.text.as_str())
            .map_err(|_| DpdkError::new(what(), "it holds a zero byte"))?;
        // SAFETY: a C string that outlives the call, in which DPDK copies it; EAL is initialised.
        match unsafe { dpdk_sys::rte_dev_probe(arguments.as_ptr()) } {
            0 => Ok(()),
            status => Err(DpdkError::from_status(what(), status)),
        }
    }

    /// The clock for all workers.
    pub fn tsc(&self) -> Tsc {
        self.tsc
    }

    /// DPDK's release, e.g. `DPDK 22.11.11`.
    pub fn version() -> String {
        // SAFETY: returns a string constant.
        unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }
            .to_string_lossy()
            .into_owned()
    }

    pub(super) fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }
}

/// What keeps EAL's memory mapped.
pub(super) struct Environment {
    pools: Mutex<Vec<NonNull<dpdk_sys::rte_mempool>>>,
}

// SAFETY: the pointers are only read in `drop`, by whichever thread drops last; mempools may be counted from any thread.
unsafe impl Send for Environment {}
// SAFETY: as above, and the list is behind a mutex.
unsafe impl Sync for Environment {}

impl Environment {
    pub(super) fn remember_pool(&self, pool: NonNull<dpdk_sys::rte_mempool>) {
        self.pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pool);
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        let pools = self.pools.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: pools are never freed, and EAL still is initialised.
        let held: u32 = pools
            .iter()
            .map(|pool| unsafe { dpdk_sys::rte_mempool_in_use_count(pool.as_ptr()) })
            .sum();
        if held > 0 {
            // Somebody holds frames: unmapping their memory would be worse than leaving files in the runtime directory.
            tracing::warn!(
                frames = held,
                "frames were still in use at exit, DPDK is left as it is"
            );
            return;
        }
        // SAFETY: no port, queue, pool, ring or lcore handle is left (each holds an `Arc` of this) and no frame is out.
        let status = unsafe { dpdk_sys::rte_eal_cleanup() };
        if status != 0 {
            tracing::warn!(error = %DpdkError::from_status("EAL cleanup", status), "DPDK did not clean up");
        }
    }
}

/// CPUs that this process may run on.
fn allowed_cpus() -> Vec<u32> {
    // SAFETY: a zeroed cpu_set_t is valid and empty; the call writes at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            libc::CPU_SET(0, &mut set);
        }
        set
    };
    // SAFETY: the index stays below the set's size.
    (0..libc::CPU_SETSIZE as usize)
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .map(|cpu| cpu as u32)
        .collect()
}

pub(super) fn errno() -> i32 {
    // SAFETY: reads a thread-local integer.
    unsafe { dpdk_sys::weir_errno() }
}

pub(super) fn describe(errno: i32) -> String {
    // SAFETY: rte_strerror returns a terminated string in thread-local storage, copied at once.
    unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno)) }
        .to_string_lossy()
        .into_owned()
}

/// Carries DPDK's log lines into ours.
unsafe extern "C" fn to_tracing(level: u32, line: *const c_char, length: usize) {
    // SAFETY: the shim passes a live buffer of `length` bytes.
    let bytes = unsafe { slice::from_raw_parts(line.cast::<u8>(), length) };
    let line = String::from_utf8_lossy(bytes);
    let line = line.trim_end();
    match level {
        // Of an interface that nobody has used since DPDK 20.05.
        _ if line.starts_with("TELEMETRY: No legacy callbacks") => {
            tracing::debug!(target: "dpdk", "{line}");
        }
        0..=dpdk_sys::RTE_LOG_ERR => tracing::error!(target: "dpdk", "{line}"),
        dpdk_sys::RTE_LOG_WARNING => tracing::warn!(target: "dpdk", "{line}"),
        dpdk_sys::RTE_LOG_NOTICE => tracing::info!(target: "dpdk", "{line}"),
        _ => tracing::debug!(target: "dpdk", "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_by_their_form() {
        for text in [
            "0000:3b:00.0",
            "3b:00.1,rx_burst=1",
            "auxiliary:mlx5_core.sf.4",
        ] {
            assert_eq!(
                text.parse::<Device>().map(|device| device.on_bus),
                Ok(true),
                "{text}"
            );
        }
        let device: Device = "net_af_packet0,iface=ext0".parse().unwrap();
        assert_eq!(
            (device.name(), device.driver(), device.argument("iface")),
            ("net_af_packet0", Some("net_af_packet"), Some("ext0"))
        );
        assert!("eth0".parse::<Device>().is_err());
        assert!("net_pcap0,rx_pcap=a b".parse::<Device>().is_err());
    }

    #[test]
    fn a_device_that_can_t_be_one_is_refused_with_what_was_meant() {
        const PCI: &str = "of a PCI address, the device goes up to 1f and the function up to 7";
        for (text, why) in [
            ("0000:3b:00.9", PCI),
            ("0000:3b:20.0", PCI),
            ("pci:0000:3b:00.8", PCI),
            ("3b:00", PCI),
            (
                "net_af_packet0;iface=eth0",
                "write `,` between arguments: \"net_af_packet0,iface=eth0\"",
            ),
            ("net_tap0,", "an argument is empty: leave its `,` out"),
        ] {
            assert_eq!(text.parse::<Device>(), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_pci_address_is_the_same_device_however_it_is_written() {
        for (text, identity) in [
            ("0000:3B:00.0", "0000:3b:00.0"),
            ("3b:00.0,rx_burst=1", "0000:3b:00.0"),
            ("pci:3b:00.0", "0000:3b:00.0"),
            ("net_tap0,iface=A", "net_tap0"),
            ("auxiliary:mlx5_core.sf.4", "auxiliary:mlx5_core.sf.4"),
        ] {
            let device: Device = text.parse().unwrap();
            assert_eq!(device.identity(), identity, "{text}");
        }
    }

    #[test]
    fn arguments_hold_one_lcore_a_worker_and_only_the_named_devices() {
        let settings = EalSettings {
            file_prefix: "weir-a".into(),
            memory: Memory::Ordinary(128),
            devices: vec!["net_ring0".parse().unwrap()],
            workers: vec![Some(3), None],
            extra: vec!["--legacy-mem".into()],
        };
        let arguments = settings.arguments();
        assert!(arguments[2].contains("),1@3,2@("), "{arguments:?}");
        for expected in [
            "--file-prefix=weir-a",
            "--no-huge",
            "128",
            "--no-pci",
            "--vdev=net_ring0",
            "--legacy-mem",
        ] {
            assert!(
                arguments.iter().any(|argument| argument == expected),
                "{expected} in {arguments:?}"
            );
        }
    }
}
