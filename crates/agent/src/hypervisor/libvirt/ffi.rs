//! Safe handles over libvirt's C functions. All `unsafe` of the agent is here.
//!
//! Why `unsafe` at all: libvirt is a C library, and no Rust library covers the
//! calls that replication needs (DESIGN §5). What keeps these calls sound:
//!
//! * **Handles.** Each of [`Connection`], [`Domain`], [`Network`], [`Pool`] and
//!   [`Checkpoint`] owns exactly one reference that libvirt counted for us: the pointer came
//!   from a function documented to return a new reference, was checked against
//!   null before the handle was made, and is given back once, in `Drop`.
//!   A handle is never copied out, so no pointer outlives its reference. Each
//!   of the others holds a libvirt reference to its connection by itself
//!   (libvirt counts it), so the order of dropping does not matter.
//! * **Threads.** libvirt documents connections and the objects below them as
//!   safe to use from several threads at once
//!   (<https://libvirt.org/threads.html>), so the handles are `Send` and
//!   `Sync`. Errors are kept per thread; [`last_error`] reads the error on the
//!   thread that made the failing call, before any other call.
//! * **Strings in** are `CString`s that live until the call has returned;
//!   libvirt copies what it keeps. **Strings out** are owned by us by
//!   libvirt's contract ([`take_string`] frees them with `free`) or borrowed
//!   from the handle (names), and then copied at once.
//! * **Structs out** (`virNodeInfo` and the like) are plain integers and
//!   character arrays, for which all-zero bytes are a valid value; libvirt
//!   fills them and keeps no pointer to them.
//! * **Lists out** are arrays of new references, ended by their count; we take
//!   over each reference once and free the array ([`take_list`]).
//! * **Events.** The default event loop is registered once, before the first
//!   connection, and runs on a thread of its own until the process ends.
//!   Callbacks get one opaque pointer: a `Box<Bell>` that is leaked at
//!   registration and given to libvirt together with [`free_bell`], which
//!   libvirt calls once when the registration ends and no callback runs. The
//!   callbacks only ring a [`Notify`] and store an atomic, so they neither
//!   block nor call libvirt again, and they cannot panic across the C frame.
//!   Their signatures are those that libvirt documents for each event; where
//!   registration takes a generic function pointer, the transmute changes
//!   nothing but the declared arguments, and libvirt calls it back with the
//!   arguments of the event that it was registered for.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong, c_void};
use std::io::Write as _;
use std::mem::{transmute, zeroed};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use domain::host::Version;
use tokio::sync::Notify;
use virt_sys as sys;

use super::error::LibvirtError;
use super::told::{BlockSize, DomainState, Node, PoolSize};

/// The error of the last call on this thread.
fn last_error() -> LibvirtError {
    // SAFETY: returns null or a pointer to this thread's error, which stays
    // valid until the next libvirt call on this thread; it is copied at once.
    let error = unsafe { sys::virGetLastError().as_ref() };
    match error {
        Some(error) => LibvirtError::Call {
            number: u32::try_from(error.code).unwrap_or_default(),
            message: borrow_string(error.message),
        },
        None => LibvirtError::Call { number: 0, message: "an unknown error".into() },
    }
}

/// Copies a C string that somebody else owns; empty for null.
fn borrow_string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and libvirt's strings end in a zero byte.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Copies and frees a C string that libvirt gave away; an error for null.
fn take_string(text: *mut c_char) -> Result<String, LibvirtError> {
    if text.is_null() {
        return Err(last_error());
    }
    let copy = borrow_string(text);
    // SAFETY: the callers pass only strings that libvirt documents as "the
    // caller must free() it", once.
    unsafe { free(text.cast()) };
    Ok(copy)
}

unsafe extern "C" {
    /// The C library's, which libvirt's strings and lists are allocated with.
    fn free(pointer: *mut c_void);
    /// The system's: ends the process without exit handlers. See _exit(2).
    fn _exit(code: c_int) -> !;
}

/// Takes over a list of references that libvirt made for us.
fn take_list<T, H>(
    list: impl FnOnce(*mut *mut *mut T) -> c_int,
    handle: impl Fn(*mut T) -> H,
) -> Result<Vec<H>, LibvirtError> {
    let mut array: *mut *mut T = ptr::null_mut();
    let count = list(&raw mut array);
    let count = usize::try_from(count).map_err(|_| last_error())?;
    // SAFETY: on success `array` holds `count` references (and a null), each
    // of which is ours; each becomes one handle.
    let handles = (0..count).map(|index| handle(unsafe { *array.add(index) })).collect();
    // SAFETY: the array itself is ours to free; its references live on.
    unsafe { free(array.cast()) };
    Ok(handles)
}

fn c_string(text: &str) -> Result<CString, LibvirtError> {
    CString::new(text).map_err(|_| LibvirtError::Call {
        number: sys::VIR_ERR_INVALID_ARG,
        message: format!("{text:?} has a zero byte"),
    })
}

/// Non-negative results of calls that return −1 for an error.
fn checked(result: c_int) -> Result<c_int, LibvirtError> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

fn version(number: u64) -> Version {
    let part = |divisor: u64| u32::try_from(number / divisor % 1000).unwrap_or_default();
    Version { major: part(1_000_000), minor: part(1000), release: part(1) }
}

/// What callbacks reach: the doorbell, and why the connection closed.
struct Bell {
    doorbell: Arc<Notify>,
    /// The reason that libvirt gave, or [`OPEN`].
    closed: Arc<AtomicI32>,
    /// How often the machine was started, where somebody counts.
    starts: Arc<AtomicU64>,
}

const OPEN: i32 = -1;

/// A connection to a hypervisor.
pub(super) struct Connection {
    pointer: sys::virConnectPtr,
    closed: Arc<AtomicI32>,
    callbacks: Mutex<Callbacks>,
}

#[derive(Default)]
struct Callbacks {
    domain: Vec<c_int>,
    network: Vec<c_int>,
    pool: Vec<c_int>,
}

// SAFETY: see the module's words on threads.
unsafe impl Send for Connection {}
// SAFETY: see the module's words on threads.
unsafe impl Sync for Connection {}

/// Seconds of silence after which libvirt's client asks whether the daemon is
/// there, and how often before it gives up.
const KEEPALIVE_SECONDS: c_int = 2;
const KEEPALIVE_COUNT: u32 = 2;

impl Connection {
    pub(super) fn open(uri: &str) -> Result<Self, LibvirtError> {
        start_event_loop()?;
        let uri = c_string(uri)?;
        // SAFETY: the URI outlives the call; the result is checked.
        let pointer = unsafe { sys::virConnectOpen(uri.as_ptr()) };
        if pointer.is_null() {
            return Err(last_error());
        }
        let connection =
            Self { pointer, closed: Arc::new(AtomicI32::new(OPEN)), callbacks: Mutex::default() };
        // SAFETY: the connection is open; the name is static in libvirt.
        let kind = borrow_string(unsafe { sys::virConnectGetType(pointer) });
        if kind != "QEMU" {
            return Err(LibvirtError::NotQemu(kind));
        }
        // Drivers without a daemon have no keepalive; that is no error.
        // SAFETY: the connection is open.
        unsafe {
            sys::virConnectSetKeepAlive(pointer, KEEPALIVE_SECONDS, KEEPALIVE_COUNT);
        }
        Ok(connection)
    }

    pub(super) fn closed(&self) -> Option<&'static str> {
        match u32::try_from(self.closed.load(Ordering::Acquire)) {
            Err(_) => None,
            Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => Some("the daemon went away"),
            Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => Some("the daemon fell silent"),
            Ok(_) => Some("an error on the connection"),
        }
    }

    /// Whether the way to the daemon is open, without asking it anything.
    pub(super) fn is_alive(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { sys::virConnectIsAlive(self.pointer) == 1 }
    }

    /// A bell as libvirt keeps it, until `free_bell`.
    fn bell(&self, doorbell: &Arc<Notify>, starts: &Arc<AtomicU64>) -> *mut c_void {
        Box::into_raw(Box::new(Bell {
            doorbell: Arc::clone(doorbell),
            closed: Arc::clone(&self.closed),
            starts: Arc::clone(starts),
        }))
        .cast::<c_void>()
    }

    /// Registers for the end of the connection.
    pub(super) fn ring_on_close(&self, doorbell: &Arc<Notify>) -> Result<(), LibvirtError> {
        // SAFETY: the callback has the documented signature; libvirt owns the
        // bell from here on and gives it to `free_bell`.
        let registered = unsafe {
            sys::virConnectRegisterCloseCallback(
                self.pointer,
                Some(closed),
                self.bell(doorbell, &Arc::default()),
                Some(free_bell),
            )
        };
        // Drivers without a daemon never close.
        if registered < 0
            && !matches!(last_error(), LibvirtError::Call { number, .. } if number == sys::VIR_ERR_NO_SUPPORT)
        {
            return Err(last_error());
        }
        Ok(())
    }

    /// Counts the starts of one machine, and rings when it starts, stops or
    /// ends a job.
    pub(super) fn watch_domain(
        &self,
        domain: &Domain,
        doorbell: &Arc<Notify>,
        starts: &Arc<AtomicU64>,
    ) -> Result<(), LibvirtError> {
        // SAFETY: see the module's words on events: the arguments are those of
        // the event that each is registered for below.
        let lifecycle = unsafe { transmute::<Four, Two>(ring_lifecycle) };
        // SAFETY: as above.
        let job = unsafe { transmute::<Parameters, Two>(ring_parameters) };
        let mut callbacks = self.callbacks.lock().expect("nobody panics while holding it");
        for (event, callback) in [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
            (sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, job),
        ] {
            // SAFETY: both handles are live; libvirt owns the bell from here on.
            let id = checked(unsafe {
                sys::virConnectDomainEventRegisterAny(
                    self.pointer,
                    domain.pointer,
                    event as c_int,
                    Some(callback),
                    self.bell(doorbell, starts),
                    Some(free_bell),
                )
            })?;
            callbacks.domain.push(id);
        }
        Ok(())
    }

    /// Registers for every event that may change what is seen.
    pub(super) fn ring_on_events(&self, doorbell: &Arc<Notify>) -> Result<(), LibvirtError> {
        self.ring_on_close(doorbell)?;
        let bell = || self.bell(doorbell, &Arc::default());
        let mut callbacks = self.callbacks.lock().expect("nobody panics while holding it");
        let four: Four = ring_four;
        let three: Three = ring_three;
        // SAFETY: see the module's words on events: the number of arguments is
        // that of the event it is registered for.
        let four_generic: Two = unsafe { transmute::<Four, Two>(four) };
        // SAFETY: as above.
        let three_generic: Two = unsafe { transmute::<Three, Two>(three) };
        for (event, callback) in [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, four_generic),
            (sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, four_generic),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, three_generic),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, three_generic),
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, ring_two as Two),
        ] {
            // SAFETY: as for the close callback.
            let id = checked(unsafe {
                sys::virConnectDomainEventRegisterAny(
                    self.pointer,
                    ptr::null_mut(),
                    event as c_int,
                    Some(callback),
                    bell(),
                    Some(free_bell),
                )
            })?;
            callbacks.domain.push(id);
        }
        // SAFETY: the transmute keeps the function; only the type of the first
        // pointers differs, and they are not looked at.
        let network_callback: sys::virConnectNetworkEventGenericCallback =
            Some(unsafe { transmute::<Four, NetworkCallback>(four) });
        // SAFETY: as for the close callback.
        let network = checked(unsafe {
            sys::virConnectNetworkEventRegisterAny(
                self.pointer,
                ptr::null_mut(),
                sys::VIR_NETWORK_EVENT_ID_LIFECYCLE as c_int,
                network_callback,
                bell(),
                Some(free_bell),
            )
        })?;
        callbacks.network.push(network);
        let two: Two = ring_two;
        // SAFETY: as for the network's callback.
        let pool_four = unsafe { transmute::<Four, PoolCallback>(four) };
        // SAFETY: as for the network's callback.
        let pool_two = unsafe { transmute::<Two, PoolCallback>(two) };
        for (event, callback) in [
            (sys::VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, Some(pool_four)),
            (sys::VIR_STORAGE_POOL_EVENT_ID_REFRESH, Some(pool_two)),
        ] {
            // SAFETY: as for the close callback.
            let id = checked(unsafe {
                sys::virConnectStoragePoolEventRegisterAny(
                    self.pointer,
                    ptr::null_mut(),
                    event as c_int,
                    callback,
                    bell(),
                    Some(free_bell),
                )
            })?;
            callbacks.pool.push(id);
        }
        Ok(())
    }

    pub(super) fn hostname(&self) -> Result<String, LibvirtError> {
        // SAFETY: the connection is open; the string is ours.
        take_string(unsafe { sys::virConnectGetHostname(self.pointer) })
    }

    pub(super) fn capabilities(&self) -> Result<String, LibvirtError> {
        // SAFETY: the connection is open; the string is ours.
        take_string(unsafe { sys::virConnectGetCapabilities(self.pointer) })
    }

    pub(super) fn libvirt_version(&self) -> Result<Version, LibvirtError> {
        let mut number = 0;
        // SAFETY: the connection is open; the number is written.
        checked(unsafe { sys::virConnectGetLibVersion(self.pointer, &raw mut number) })?;
        Ok(version(number))
    }

    pub(super) fn hypervisor_version(&self) -> Result<Version, LibvirtError> {
        let mut number = 0;
        // SAFETY: the connection is open; the number is written.
        checked(unsafe { sys::virConnectGetVersion(self.pointer, &raw mut number) })?;
        Ok(version(number))
    }

    pub(super) fn node(&self) -> Result<Node, LibvirtError> {
        // SAFETY: plain integers and characters.
        let mut node: sys::virNodeInfo = unsafe { zeroed() };
        // SAFETY: the connection is open; the struct is filled.
        checked(unsafe { sys::virNodeGetInfo(self.pointer, &raw mut node) })?;
        Ok(Node {
            model: borrow_string(node.model.as_ptr()),
            cpus: node.cpus,
            memory_kib: node.memory,
        })
    }

    pub(super) fn domain(&self, uuid: &str) -> Result<Domain, LibvirtError> {
        let uuid = c_string(uuid)?;
        // SAFETY: the connection is open; the string outlives the call.
        let pointer = unsafe { sys::virDomainLookupByUUIDString(self.pointer, uuid.as_ptr()) };
        if pointer.is_null() { Err(last_error()) } else { Ok(Domain { pointer }) }
    }

    pub(super) fn domain_named(&self, name: &str) -> Result<Domain, LibvirtError> {
        let name = c_string(name)?;
        // SAFETY: the connection is open; the string outlives the call.
        let pointer = unsafe { sys::virDomainLookupByName(self.pointer, name.as_ptr()) };
        if pointer.is_null() { Err(last_error()) } else { Ok(Domain { pointer }) }
    }

    /// Makes a machine known, in the place of a definition with the same name
    /// and UUID.
    pub(super) fn define(&self, xml: &str) -> Result<Domain, LibvirtError> {
        let xml = c_string(xml)?;
        // SAFETY: the connection is open; the string outlives the call.
        let pointer = unsafe { sys::virDomainDefineXML(self.pointer, xml.as_ptr()) };
        if pointer.is_null() { Err(last_error()) } else { Ok(Domain { pointer }) }
    }

    pub(super) fn network_named(&self, name: &str) -> Result<Network, LibvirtError> {
        let name = c_string(name)?;
        // SAFETY: the connection is open; the string outlives the call.
        let pointer = unsafe { sys::virNetworkLookupByName(self.pointer, name.as_ptr()) };
        if pointer.is_null() { Err(last_error()) } else { Ok(Network { pointer }) }
    }

    pub(super) fn domains(&self) -> Result<Vec<Domain>, LibvirtError> {
        // SAFETY: the connection is open.
        take_list(
            |list| unsafe { sys::virConnectListAllDomains(self.pointer, list, 0) },
            |pointer| Domain { pointer },
        )
    }

    pub(super) fn networks(&self) -> Result<Vec<Network>, LibvirtError> {
        // SAFETY: the connection is open.
        take_list(
            |list| unsafe { sys::virConnectListAllNetworks(self.pointer, list, 0) },
            |pointer| Network { pointer },
        )
    }

    pub(super) fn pools(&self) -> Result<Vec<Pool>, LibvirtError> {
        // SAFETY: the connection is open.
        take_list(
            |list| unsafe { sys::virConnectListAllStoragePools(self.pointer, list, 0) },
            |pointer| Pool { pointer },
        )
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let callbacks = self.callbacks.get_mut().expect("nobody panics while holding it");
        // SAFETY: the ids are those of this connection; each is ended once.
        // The reference is ours and given back once.
        unsafe {
            for id in callbacks.domain.drain(..) {
                sys::virConnectDomainEventDeregisterAny(self.pointer, id);
            }
            for id in callbacks.network.drain(..) {
                sys::virConnectNetworkEventDeregisterAny(self.pointer, id);
            }
            for id in callbacks.pool.drain(..) {
                sys::virConnectStoragePoolEventDeregisterAny(self.pointer, id);
            }
            sys::virConnectUnregisterCloseCallback(self.pointer, Some(closed));
            sys::virConnectClose(self.pointer);
        }
    }
}

/// Callbacks by how many arguments stand before the opaque one.
type Two = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type Three = unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_char, *mut c_void);
type NetworkCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virNetworkPtr, *mut c_void);
type PoolCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virStoragePoolPtr, *mut c_void);
type Parameters = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, c_int, *mut c_void);
type Four = unsafe extern "C" fn(*mut c_void, *mut c_void, c_int, c_int, *mut c_void);

/// # Safety
/// `opaque` is a live `Bell`, which libvirt keeps until `free_bell`.
unsafe fn ring(opaque: *mut c_void) {
    // SAFETY: promised by the caller.
    let bell = unsafe { &*opaque.cast::<Bell>() };
    bell.doorbell.notify_one();
}

unsafe extern "C" fn ring_two(_: sys::virConnectPtr, _: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: registered with a bell.
    unsafe { ring(opaque) }
}

unsafe extern "C" fn ring_three(
    _: *mut c_void,
    _: *mut c_void,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: registered with a bell.
    unsafe { ring(opaque) }
}

unsafe extern "C" fn ring_four(
    _: *mut c_void,
    _: *mut c_void,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: registered with a bell.
    unsafe { ring(opaque) }
}

unsafe extern "C" fn ring_lifecycle(
    _: *mut c_void,
    _: *mut c_void,
    event: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: registered with a bell, which is live until `free_bell`.
    let bell = unsafe { &*opaque.cast::<Bell>() };
    if u32::try_from(event) == Ok(sys::VIR_DOMAIN_EVENT_STARTED) {
        bell.starts.fetch_add(1, Ordering::AcqRel);
    }
    bell.doorbell.notify_one();
}

unsafe extern "C" fn ring_parameters(
    _: *mut c_void,
    _: *mut c_void,
    _: *mut c_void,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: registered with a bell.
    unsafe { ring(opaque) }
}

unsafe extern "C" fn closed(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: registered with a bell, which is live until `free_bell`.
    let bell = unsafe { &*opaque.cast::<Bell>() };
    bell.closed.store(reason, Ordering::Release);
    bell.doorbell.notify_one();
}

unsafe extern "C" fn free_bell(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` at registration; libvirt calls this once.
    drop(unsafe { Box::from_raw(opaque.cast::<Bell>()) });
}

/// Starts libvirt's own event loop on a thread, once for the process.
fn start_event_loop() -> Result<(), LibvirtError> {
    static STARTED: OnceLock<Result<(), LibvirtError>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            // SAFETY: called once, before any connection is opened. Without
            // the silenced handler libvirt writes its errors to stderr.
            unsafe {
                sys::virSetErrorFunc(ptr::null_mut(), Some(ignore_error));
                checked(sys::virInitialize())?;
                checked(sys::virEventRegisterDefaultImpl())?;
            }
            std::thread::Builder::new()
                .name("libvirt-events".into())
                .spawn(|| {
                    // SAFETY: the loop was registered, and only this thread runs it.
                    while unsafe { sys::virEventRunDefaultImpl() } == 0 {}
                })
                .map(drop)
                .map_err(|error| LibvirtError::Call {
                    number: sys::VIR_ERR_SYSTEM_ERROR,
                    message: format!("start the thread for events: {error}"),
                })
        })
        .clone()
}

/// Ends the process at once, with this exit code, after what was printed has
/// been written out.
///
/// The C library's exit handlers take libvirt's libraries apart, while the
/// event loop and calls that cannot be cancelled still use them: an ordinary
/// end of the process corrupted the heap in one run of fifty. What has to be
/// durable was synchronised when it was written, so nothing is lost.
pub(super) fn end_process(code: i32) -> ! {
    // A closed pipe is no reason to stay.
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    // SAFETY: takes an integer and does not return; no Rust value is dropped,
    // which is allowed, and no lock or memory is used afterwards.
    unsafe { _exit(code) }
}

unsafe extern "C" fn ignore_error(_: *mut c_void, _: sys::virErrorPtr) {}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident($pointer:ty) freed by $free:ident, xml $xml:ident, autostart $autostart:ident) => {
        $(#[$doc])*
        pub(super) struct $name {
            pointer: $pointer,
        }

        impl $name {
            pub(super) fn xml(&self) -> Result<String, LibvirtError> {
                // SAFETY: the handle is live; the string is ours.
                take_string(unsafe { sys::$xml(self.pointer, 0) })
            }

            /// False too for a transient object, which has no such setting.
            pub(super) fn autostart(&self) -> Result<bool, LibvirtError> {
                let mut autostart: c_int = 0;
                // SAFETY: the handle is live; the number is written.
                match checked(unsafe { sys::$autostart(self.pointer, &raw mut autostart) }) {
                    Ok(_) => Ok(autostart != 0),
                    Err(error) if error.is_gone() => Err(error),
                    Err(_) => Ok(false),
                }
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the reference is ours and given back once.
                unsafe { sys::$free(self.pointer) };
            }
        }
    };
}

handle!(
    /// A machine of the hypervisor.
    Domain(sys::virDomainPtr) freed by virDomainFree, xml virDomainGetXMLDesc, autostart virDomainGetAutostart
);
handle!(
    /// A virtual network of the hypervisor.
    Network(sys::virNetworkPtr) freed by virNetworkFree, xml virNetworkGetXMLDesc, autostart virNetworkGetAutostart
);
handle!(
    /// A storage pool of the hypervisor.
    Pool(sys::virStoragePoolPtr) freed by virStoragePoolFree, xml virStoragePoolGetXMLDesc, autostart virStoragePoolGetAutostart
);

impl Domain {
    pub(super) fn state(&self) -> Result<DomainState, LibvirtError> {
        let (state, _) = self.state_and_reason()?;
        Ok(match state {
            sys::VIR_DOMAIN_PAUSED => DomainState::Paused,
            sys::VIR_DOMAIN_SHUTDOWN => DomainState::ShuttingDown,
            sys::VIR_DOMAIN_SHUTOFF => DomainState::Off,
            sys::VIR_DOMAIN_CRASHED => DomainState::Crashed,
            sys::VIR_DOMAIN_PMSUSPENDED => DomainState::Suspended,
            // Running, blocked (idle), and "no state", which some drivers say.
            _ => DomainState::Running,
        })
    }

    fn state_and_reason(&self) -> Result<(u32, u32), LibvirtError> {
        let (mut state, mut reason): (c_int, c_int) = (0, 0);
        // SAFETY: the handle is live; both numbers are written.
        checked(unsafe {
            sys::virDomainGetState(self.pointer, &raw mut state, &raw mut reason, 0)
        })?;
        let number = |said| u32::try_from(said).unwrap_or_default();
        Ok((number(state), number(reason)))
    }

    pub(super) fn is_persistent(&self) -> Result<bool, LibvirtError> {
        // SAFETY: the handle is live.
        checked(unsafe { sys::virDomainIsPersistent(self.pointer) }).map(|answer| answer == 1)
    }

    pub(super) fn block_size(&self, target: &str) -> Result<BlockSize, LibvirtError> {
        let target = c_string(target)?;
        // SAFETY: plain integers.
        let mut size: sys::virDomainBlockInfo = unsafe { zeroed() };
        // SAFETY: the handle is live, the string outlives the call, the struct is filled.
        checked(unsafe {
            sys::virDomainGetBlockInfo(self.pointer, target.as_ptr(), &raw mut size, 0)
        })?;
        Ok(BlockSize { capacity: size.capacity, allocation: size.allocation })
    }
}

/// What capture asks of a machine.
impl Domain {
    pub(super) fn is_active(&self) -> Result<bool, LibvirtError> {
        // SAFETY: the handle is live.
        checked(unsafe { sys::virDomainIsActive(self.pointer) }).map(|answer| answer == 1)
    }

    /// Whether it is off because its guest shut down, as far as libvirt knows.
    pub(super) fn shut_down_in_order(&self) -> Result<bool, LibvirtError> {
        let shut_down = (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN);
        Ok(self.state_and_reason()? == shut_down)
    }

    /// Whether QEMU holds it because a write or read of its disks failed.
    pub(super) fn is_held_by_an_error(&self) -> Result<bool, LibvirtError> {
        let held = (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_IOERROR);
        Ok(self.state_and_reason()? == held)
    }

    pub(super) fn resume(&self) -> Result<(), LibvirtError> {
        // SAFETY: the handle is live.
        checked(unsafe { sys::virDomainResume(self.pointer) }).map(drop)
    }

    /// The description that its next start would use.
    pub(super) fn inactive_xml(&self) -> Result<String, LibvirtError> {
        // SAFETY: the handle is live; the string is ours.
        take_string(unsafe { sys::virDomainGetXMLDesc(self.pointer, sys::VIR_DOMAIN_XML_INACTIVE) })
    }

    pub(super) fn begin_backup(
        &self,
        backup: &str,
        checkpoint: Option<&str>,
    ) -> Result<(), LibvirtError> {
        let backup = c_string(backup)?;
        let checkpoint = checkpoint.map(c_string).transpose()?;
        let checkpoint = checkpoint.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        // SAFETY: the handle is live; the strings outlive the call, and no
        // checkpoint may be null.
        checked(unsafe { sys::virDomainBackupBegin(self.pointer, backup.as_ptr(), checkpoint, 0) })
            .map(drop)
    }

    /// The backup job that runs; none when none does.
    pub(super) fn backup_xml(&self) -> Result<Option<String>, LibvirtError> {
        // SAFETY: the handle is live; the string is ours.
        match take_string(unsafe { sys::virDomainBackupGetXMLDesc(self.pointer, 0) }) {
            Ok(xml) => Ok(Some(xml)),
            Err(LibvirtError::Call { number: sys::VIR_ERR_NO_DOMAIN_BACKUP, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the job that runs is doing; none when none runs.
    pub(super) fn job(&self) -> Result<Option<&'static str>, LibvirtError> {
        let mut kind: c_int = 0;
        let mut parameters: sys::virTypedParameterPtr = ptr::null_mut();
        let mut count: c_int = 0;
        // SAFETY: the handle is live; all three are written, and the array is
        // ours on success.
        checked(unsafe {
            sys::virDomainGetJobStats(
                self.pointer,
                &raw mut kind,
                &raw mut parameters,
                &raw mut count,
                0,
            )
        })?;
        let mut operation: c_int = 0;
        // SAFETY: the array has `count` entries and is freed once; the name is
        // static, and the number is written when there is one.
        unsafe {
            sys::virTypedParamsGetInt(parameters, count, c"operation".as_ptr(), &raw mut operation);
            sys::virTypedParamsFree(parameters, count);
        }
        if u32::try_from(kind) == Ok(sys::VIR_DOMAIN_JOB_NONE) {
            return Ok(None);
        }
        Ok(Some(match u32::try_from(operation).unwrap_or_default() {
            sys::VIR_DOMAIN_JOB_OPERATION_START => "a start",
            sys::VIR_DOMAIN_JOB_OPERATION_SAVE => "a save",
            sys::VIR_DOMAIN_JOB_OPERATION_RESTORE => "a restore",
            sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
            | sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT => "a migration",
            sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT
            | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT
            | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE => "work on a snapshot",
            sys::VIR_DOMAIN_JOB_OPERATION_DUMP => "a memory dump",
            sys::VIR_DOMAIN_JOB_OPERATION_BACKUP => "a backup",
            _ => "another job",
        }))
    }

    /// Ends whatever job runs. It may go on for a moment after the return.
    pub(super) fn abort_job(&self) -> Result<(), LibvirtError> {
        // SAFETY: the handle is live.
        checked(unsafe { sys::virDomainAbortJob(self.pointer) }).map(drop)
    }

    /// What the block job of a disk is doing; none when it has none.
    pub(super) fn block_job(&self, target: &str) -> Result<Option<&'static str>, LibvirtError> {
        let target = c_string(target)?;
        // SAFETY: plain integers.
        let mut job: sys::virDomainBlockJobInfo = unsafe { zeroed() };
        // SAFETY: the handle is live, the string outlives the call, the struct
        // is filled.
        let found = checked(unsafe {
            sys::virDomainGetBlockJobInfo(self.pointer, target.as_ptr(), &raw mut job, 0)
        })?;
        if found == 0 {
            return Ok(None);
        }
        Ok(Some(match u32::try_from(job.type_).unwrap_or_default() {
            sys::VIR_DOMAIN_BLOCK_JOB_TYPE_PULL => "a block pull",
            sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COPY => "a block copy",
            sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT
            | sys::VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT => "a block commit",
            sys::VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP => "a block backup",
            _ => "a block job",
        }))
    }

    /// Names of its snapshots.
    pub(super) fn snapshots(&self) -> Result<Vec<String>, LibvirtError> {
        // SAFETY: the handle is live; each reference is copied from and given
        // back once.
        take_list(
            |list| unsafe { sys::virDomainListAllSnapshots(self.pointer, list, 0) },
            |snapshot| unsafe {
                let name = borrow_string(sys::virDomainSnapshotGetName(snapshot));
                sys::virDomainSnapshotFree(snapshot);
                name
            },
        )
    }

    /// All its checkpoints, parents before children.
    pub(super) fn checkpoints(&self) -> Result<Vec<Checkpoint>, LibvirtError> {
        let flags = sys::VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL;
        // SAFETY: the handle is live.
        take_list(
            |list| unsafe { sys::virDomainListAllCheckpoints(self.pointer, list, flags) },
            |pointer| Checkpoint { pointer },
        )
    }

    /// Freezes all file systems through the guest agent; returns how many.
    pub(super) fn freeze(&self) -> Result<u32, LibvirtError> {
        // SAFETY: the handle is live; no list means all.
        let frozen =
            checked(unsafe { sys::virDomainFSFreeze(self.pointer, ptr::null_mut(), 0, 0) })?;
        Ok(u32::try_from(frozen).unwrap_or_default())
    }

    /// Thaws all file systems through the guest agent; returns how many.
    pub(super) fn thaw(&self) -> Result<u32, LibvirtError> {
        // SAFETY: the handle is live; no list means all.
        let thawed = checked(unsafe { sys::virDomainFSThaw(self.pointer, ptr::null_mut(), 0, 0) })?;
        Ok(u32::try_from(thawed).unwrap_or_default())
    }
}

/// What failover asks of a machine.
impl Domain {
    pub(super) fn uuid(&self) -> Result<String, LibvirtError> {
        // `VIR_UUID_STRING_BUFLEN`, with the zero byte.
        let mut buffer: [c_char; 37] = [0; 37];
        // SAFETY: the handle is live; the buffer has the documented length.
        checked(unsafe { sys::virDomainGetUUIDString(self.pointer, buffer.as_mut_ptr()) })?;
        Ok(borrow_string(buffer.as_ptr()))
    }

    pub(super) fn start(&self) -> Result<(), LibvirtError> {
        // SAFETY: the handle is live.
        checked(unsafe { sys::virDomainCreate(self.pointer) }).map(drop)
    }

    /// Takes its power away.
    pub(super) fn destroy(&self) -> Result<(), LibvirtError> {
        // SAFETY: the handle is live, and stays so.
        checked(unsafe { sys::virDomainDestroy(self.pointer) }).map(drop)
    }

    /// Asks the guest to shut down, by its agent or by its power button.
    pub(super) fn shut_down(&self, by_agent: bool) -> Result<(), LibvirtError> {
        let flags = match by_agent {
            true => sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
            false => sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
        };
        // SAFETY: the handle is live.
        checked(unsafe { sys::virDomainShutdownFlags(self.pointer, flags) }).map(drop)
    }

    /// Makes libvirt forget it, with all that libvirt keeps of it.
    pub(super) fn undefine(&self) -> Result<(), LibvirtError> {
        let flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
        // SAFETY: the handle is live, and stays so.
        checked(unsafe { sys::virDomainUndefineFlags(self.pointer, flags) }).map(drop)
    }

    pub(super) fn set_autostart(&self, on: bool) -> Result<(), LibvirtError> {
        // SAFETY: the handle is live.
        checked(unsafe { sys::virDomainSetAutostart(self.pointer, c_int::from(on)) }).map(drop)
    }

    /// Asks the guest agent for the time, to hear whether it is there.
    pub(super) fn ask_time(&self) -> Result<(), LibvirtError> {
        let (mut seconds, mut rest) = (0, 0);
        // SAFETY: the handle is live; both numbers are written.
        let asked = unsafe {
            sys::virDomainGetTime(self.pointer, &raw mut seconds, &raw mut rest, 0 as c_uint)
        };
        checked(asked).map(drop)
    }

    /// How many requests a disk has had since the start.
    pub(super) fn disk_requests(&self, target: &str) -> Result<u64, LibvirtError> {
        let stats = self.disk_stats(target)?;
        let count = |requests: i64| u64::try_from(requests).unwrap_or_default();
        Ok(count(stats.rd_req) + count(stats.wr_req))
    }

    /// How many bytes the guest has written to a disk since the start.
    pub(super) fn disk_bytes_written(&self, target: &str) -> Result<u64, LibvirtError> {
        Ok(u64::try_from(self.disk_stats(target)?.wr_bytes).unwrap_or_default())
    }

    fn disk_stats(&self, target: &str) -> Result<sys::virDomainBlockStatsStruct, LibvirtError> {
        let target = c_string(target)?;
        // SAFETY: plain integers.
        let mut stats: sys::virDomainBlockStatsStruct = unsafe { zeroed() };
        // SAFETY: the handle is live, the string outlives the call, and the
        // struct, whose size is told, is filled.
        checked(unsafe {
            sys::virDomainBlockStats(
                self.pointer,
                target.as_ptr(),
                &raw mut stats,
                size_of_val(&stats),
            )
        })?;
        Ok(stats)
    }

    /// Begins to bring all that a disk's image stands on into the image itself,
    /// at most so many bytes a second; 0 is no limit.
    pub(super) fn pull(&self, target: &str, bytes_per_second: u64) -> Result<(), LibvirtError> {
        let target = c_string(target)?;
        let limit = c_ulong::try_from(bytes_per_second).unwrap_or(c_ulong::MAX);
        let flags = sys::VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES;
        // SAFETY: the handle is live, the string outlives the call.
        checked(unsafe { sys::virDomainBlockPull(self.pointer, target.as_ptr(), limit, flags) })
            .map(drop)
    }

    /// How far the block job of a disk is, of how much; none when it has none.
    pub(super) fn block_progress(&self, target: &str) -> Result<Option<(u64, u64)>, LibvirtError> {
        let target = c_string(target)?;
        // SAFETY: plain integers.
        let mut job: sys::virDomainBlockJobInfo = unsafe { zeroed() };
        // SAFETY: the handle is live, the string outlives the call, the struct
        // is filled.
        let found = checked(unsafe {
            sys::virDomainGetBlockJobInfo(self.pointer, target.as_ptr(), &raw mut job, 0)
        })?;
        Ok((found != 0).then_some((job.cur, job.end)))
    }
}

/// A checkpoint of a machine.
pub(super) struct Checkpoint {
    pointer: sys::virDomainCheckpointPtr,
}

impl Checkpoint {
    pub(super) fn name(&self) -> String {
        // SAFETY: the handle is live; the name belongs to it.
        borrow_string(unsafe { sys::virDomainCheckpointGetName(self.pointer) })
    }

    /// Its description, without that of the machine.
    pub(super) fn xml(&self) -> Result<String, LibvirtError> {
        let flags = sys::VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN;
        // SAFETY: the handle is live; the string is ours.
        take_string(unsafe { sys::virDomainCheckpointGetXMLDesc(self.pointer, flags) })
    }

    /// Removes it with its bitmaps.
    pub(super) fn delete(&self) -> Result<(), LibvirtError> {
        // SAFETY: the handle is live, and stays so.
        checked(unsafe { sys::virDomainCheckpointDelete(self.pointer, 0) }).map(drop)
    }

    /// Makes libvirt forget it, whatever there is of its bitmaps.
    pub(super) fn delete_metadata(&self) -> Result<(), LibvirtError> {
        let flags = sys::VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY;
        // SAFETY: the handle is live, and stays so.
        checked(unsafe { sys::virDomainCheckpointDelete(self.pointer, flags) }).map(drop)
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        // SAFETY: the reference is ours and given back once.
        unsafe { sys::virDomainCheckpointFree(self.pointer) };
    }
}

impl Network {
    pub(super) fn is_active(&self) -> Result<bool, LibvirtError> {
        // SAFETY: the handle is live.
        checked(unsafe { sys::virNetworkIsActive(self.pointer) }).map(|answer| answer == 1)
    }
}

impl Pool {
    pub(super) fn size(&self) -> Result<PoolSize, LibvirtError> {
        // SAFETY: plain integers.
        let mut size: sys::virStoragePoolInfo = unsafe { zeroed() };
        // SAFETY: the handle is live; the struct is filled.
        checked(unsafe { sys::virStoragePoolGetInfo(self.pointer, &raw mut size) })?;
        Ok(PoolSize {
            active: u32::try_from(size.state) == Ok(sys::VIR_STORAGE_POOL_RUNNING),
            capacity: size.capacity,
            available: size.available,
        })
    }
}
