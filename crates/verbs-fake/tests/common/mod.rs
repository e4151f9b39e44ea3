//! What the tests share: one end of a connection, made, connected, posted to and polled through the inlines of `verbs-sys`.
//!
//! An end posts and polls as of old or extended; the results must be the same.
#![allow(dead_code, reason = "no test file uses all of it")]

use core::mem::MaybeUninit;
use sinew_verbs_fake::{Control, FakeDevice, Options};
use sinew_verbs_sys as sys;
use std::ptr::null_mut;
use sys::{IbvQpState as QpState, IbvQpType as Type, IbvWcStatus as Status, IbvWrOpcode as Wr};

/// How an end posts and polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Legacy,
    Extended,
}

pub(crate) const FORMS: [Form; 2] = [Form::Legacy, Form::Extended];

/// All rights.
pub(crate) const ALL: u32 = sys::IBV_ACCESS_LOCAL_WRITE
    | sys::IBV_ACCESS_REMOTE_WRITE
    | sys::IBV_ACCESS_REMOTE_READ
    | sys::IBV_ACCESS_REMOTE_ATOMIC
    | sys::IBV_ACCESS_MW_BIND;

pub(crate) const BYTES: usize = 4096;

/// How an end is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) form: Form,
    pub(crate) kind: Type,
    pub(crate) depth: u32,
    pub(crate) cqe: u32,
    pub(crate) access: u32,
    pub(crate) all_signaled: bool,
    pub(crate) with_srq: bool,
    pub(crate) rnr_retry: u8,
}

impl Plan {
    pub(crate) fn new(form: Form, kind: Type) -> Self {
        Self {
            form,
            kind,
            depth: 8,
            cqe: 64,
            access: ALL,
            all_signaled: false,
            with_srq: false,
            rnr_retry: 7,
        }
    }
}

/// One end: a device, a domain, a queue of completions, a queue pair, a region.
pub(crate) struct End {
    pub(crate) lib: sys::Library,
    pub(crate) context: *mut sys::ibv_context,
    pub(crate) pd: *mut sys::ibv_pd,
    pub(crate) channel: *mut sys::ibv_comp_channel,
    pub(crate) cq: *mut sys::ibv_cq,
    pub(crate) srq: *mut sys::ibv_srq,
    pub(crate) qp: *mut sys::ibv_qp,
    pub(crate) memory: *mut u8,
    pub(crate) mr: *mut sys::ibv_mr,
    pub(crate) plan: Plan,
}

pub(crate) fn open(lib: &sys::Library, index: usize) -> *mut sys::ibv_context {
    let verbs = lib.verbs();
    let mut count = 0;
    // SAFETY: the list is freed once, after the device was opened.
    unsafe {
        let list = (verbs.ibv_get_device_list)(&raw mut count);
        assert!(index < usize::try_from(count).unwrap());
        let context = (verbs.ibv_open_device)(*list.add(index));
        (verbs.ibv_free_device_list)(list);
        assert!(!context.is_null());
        context
    }
}

impl End {
    pub(crate) fn new(lib: &sys::Library, index: usize, plan: Plan) -> Self {
        let verbs = lib.verbs();
        let context = open(lib, index);
        // SAFETY: every object is made of those made before, and destroyed in `close`.
        unsafe {
            let pd = (verbs.ibv_alloc_pd)(context);
            let channel = (verbs.ibv_create_comp_channel)(context);
            let cq = match plan.form {
                Form::Legacy => {
                    (verbs.ibv_create_cq)(context, plan.cqe.cast_signed(), null_mut(), channel, 0)
                }
                Form::Extended => {
                    let mut attr = sys::ibv_cq_init_attr_ex::zeroed();
                    (attr.cqe, attr.channel) = (plan.cqe, channel);
                    attr.wc_flags = sys::IBV_WC_STANDARD_FLAGS | sys::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP;
                    sys::ibv_cq_ex_to_cq(sys::ibv_create_cq_ex(context, &mut attr).unwrap())
                }
            };
            let mut srq = null_mut();
            if plan.with_srq {
                let mut init = sys::ibv_srq_init_attr::zeroed();
                (init.attr.max_wr, init.attr.max_sge) = (plan.depth, 2);
                srq = (verbs.ibv_create_srq)(pd, &raw mut init);
            }
            let memory = Box::into_raw(Box::new([0u64; BYTES / 8])).cast::<u8>();
            let mr = verbs.reg_mr(pd, memory.cast(), BYTES, plan.access).unwrap();
            let mut end =
                Self { lib: lib.clone(), context, pd, channel, cq, srq, qp: null_mut(), memory, mr, plan };
            end.qp = end.make_qp().unwrap();
            end
        }
    }

    pub(crate) fn make_qp(&self) -> Result<*mut sys::ibv_qp, sys::Errno> {
        let mut attr = sys::ibv_qp_init_attr_ex::zeroed();
        (attr.send_cq, attr.recv_cq, attr.srq, attr.pd) = (self.cq, self.cq, self.srq, self.pd);
        (attr.cap.max_send_wr, attr.cap.max_recv_wr) = (self.plan.depth, self.plan.depth);
        (attr.cap.max_send_sge, attr.cap.max_recv_sge, attr.cap.max_inline_data) = (2, 2, 64);
        attr.qp_type = self.plan.kind;
        attr.sq_sig_all = i32::from(self.plan.all_signaled);
        attr.comp_mask = sys::IBV_QP_INIT_ATTR_PD;
        if self.plan.form == Form::Extended {
            attr.comp_mask |= sys::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
            attr.send_ops_flags = sys::IBV_QP_EX_WITH_SEND | sys::IBV_QP_EX_WITH_SEND_WITH_IMM;
            if self.plan.kind != Type::UD {
                attr.send_ops_flags |= sys::IBV_QP_EX_WITH_RDMA_WRITE
                    | sys::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
                    | sys::IBV_QP_EX_WITH_SEND_WITH_INV
                    | sys::IBV_QP_EX_WITH_LOCAL_INV
                    | sys::IBV_QP_EX_WITH_BIND_MW;
            }
            if self.plan.kind == Type::RC {
                attr.send_ops_flags |= sys::IBV_QP_EX_WITH_RDMA_READ
                    | sys::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
                    | sys::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
            }
        }
        // SAFETY: the attributes name live objects.
        unsafe { self.lib.verbs().create_qp_ex(self.context, &mut attr) }
    }

    pub(crate) fn qp_num(&self) -> u32 {
        // SAFETY: the queue pair is alive, or was; its object stays.
        unsafe { (*self.qp).qp_num }
    }

    pub(crate) fn cq_handle(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.cq).handle }
    }

    pub(crate) fn lid(&self) -> u16 {
        // SAFETY: the context is open.
        unsafe { self.lib.verbs().query_port(self.context, 1).unwrap().lid }
    }

    pub(crate) fn modify(&self, attr: &mut sys::ibv_qp_attr, mask: u32) -> Result<(), sys::Errno> {
        // SAFETY: the queue pair is alive.
        sys::Errno::check(unsafe { (self.lib.verbs().ibv_modify_qp)(self.qp, attr, mask.cast_signed()) })
    }

    pub(crate) fn to_state(&self, state: QpState) -> Result<(), sys::Errno> {
        let mut attr = sys::ibv_qp_attr::zeroed();
        attr.qp_state = state;
        self.modify(&mut attr, sys::IBV_QP_STATE)
    }

    pub(crate) fn to_init(&self) {
        let mut attr = sys::ibv_qp_attr::zeroed();
        (attr.qp_state, attr.port_num, attr.qkey) = (QpState::INIT, 1, 0x1234);
        attr.qp_access_flags = self.plan.access;
        let last = if self.plan.kind == Type::UD { sys::IBV_QP_QKEY } else { sys::IBV_QP_ACCESS_FLAGS };
        let mask = sys::IBV_QP_STATE | sys::IBV_QP_PKEY_INDEX | sys::IBV_QP_PORT | last;
        self.modify(&mut attr, mask).unwrap();
    }

    pub(crate) fn to_rtr(&self, peer: &Self) {
        let mut attr = sys::ibv_qp_attr::zeroed();
        attr.qp_state = QpState::RTR;
        if self.plan.kind == Type::UD {
            return self.modify(&mut attr, sys::IBV_QP_STATE).unwrap();
        }
        (attr.path_mtu, attr.dest_qp_num, attr.rq_psn) =
            (sys::IbvMtu::MTU_1024, peer.qp_num(), peer.qp_num());
        (attr.max_dest_rd_atomic, attr.min_rnr_timer) = (4, 12);
        (attr.ah_attr.dlid, attr.ah_attr.port_num) = (peer.lid(), 1);
        let mut mask = sys::IBV_QP_STATE
            | sys::IBV_QP_AV
            | sys::IBV_QP_PATH_MTU
            | sys::IBV_QP_DEST_QPN
            | sys::IBV_QP_RQ_PSN;
        if self.plan.kind == Type::RC {
            mask |= sys::IBV_QP_MAX_DEST_RD_ATOMIC | sys::IBV_QP_MIN_RNR_TIMER;
        }
        self.modify(&mut attr, mask).unwrap();
    }

    pub(crate) fn to_rts(&self) {
        let mut attr = sys::ibv_qp_attr::zeroed();
        (attr.qp_state, attr.sq_psn) = (QpState::RTS, self.qp_num());
        (attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.max_rd_atomic) = (14, 7, self.plan.rnr_retry, 4);
        let mut mask = sys::IBV_QP_STATE | sys::IBV_QP_SQ_PSN;
        if self.plan.kind == Type::RC {
            mask |= sys::IBV_QP_TIMEOUT
                | sys::IBV_QP_RETRY_CNT
                | sys::IBV_QP_RNR_RETRY
                | sys::IBV_QP_MAX_QP_RD_ATOMIC;
        }
        self.modify(&mut attr, mask).unwrap();
    }

    pub(crate) fn state(&self) -> QpState {
        let (mut attr, mut init) = (sys::ibv_qp_attr::zeroed(), sys::ibv_qp_init_attr::zeroed());
        let query = self.lib.verbs().ibv_query_qp;
        // SAFETY: the queue pair is alive.
        let done = unsafe { query(self.qp, &raw mut attr, sys::IBV_QP_STATE.cast_signed(), &raw mut init) };
        assert_eq!(done, 0);
        attr.qp_state
    }

    pub(crate) fn addr(&self, offset: usize) -> u64 {
        self.memory.wrapping_add(offset).expose_provenance() as u64
    }

    pub(crate) fn sge(&self, offset: usize, len: u32) -> sys::ibv_sge {
        // SAFETY: the region's object stays.
        sys::ibv_sge { addr: self.addr(offset), length: len, lkey: unsafe { (*self.mr).lkey } }
    }

    pub(crate) fn rkey(&self) -> u32 {
        // SAFETY: the region's object stays.
        unsafe { (*self.mr).rkey }
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= BYTES);
        // SAFETY: inside the memory of this end; nobody else touches it meanwhile.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.add(offset), bytes.len()) };
    }

    pub(crate) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= BYTES);
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts(self.memory.add(offset), len) }.to_vec()
    }

    pub(crate) fn recv_sge(&self, wr_id: u64, mut sge: sys::ibv_sge) -> Result<(), sys::Errno> {
        let mut wr = sys::ibv_recv_wr { wr_id, next: null_mut(), sg_list: &raw mut sge, num_sge: 1 };
        let mut bad = null_mut();
        // SAFETY: the queue is alive; the memory outlives it.
        let result = unsafe {
            if self.srq.is_null() {
                sys::ibv_post_recv(self.qp, &raw mut wr, &mut bad)
            } else {
                sys::ibv_post_srq_recv(self.srq, &raw mut wr, &mut bad)
            }
        };
        assert_eq!(result.is_err(), !bad.is_null() && bad == &raw mut wr);
        result
    }

    pub(crate) fn recv(&self, wr_id: u64, offset: usize, len: u32) -> Result<(), sys::Errno> {
        self.recv_sge(wr_id, self.sge(offset, len))
    }

    /// Posts a request as the plan says.
    pub(crate) fn post(&self, request: &Request) -> Result<(), sys::Errno> {
        match self.plan.form {
            Form::Legacy => self.post_legacy(request),
            Form::Extended => self.post_extended(request),
        }
    }

    fn post_legacy(&self, request: &Request) -> Result<(), sys::Errno> {
        let mut sge = request.sge;
        let mut inline = request.inline.clone();
        let mut wr = sys::ibv_send_wr::zeroed();
        (wr.wr_id, wr.opcode, wr.send_flags) = (request.wr_id, request.opcode, request.flags);
        (wr.num_sge, wr.imm_data) = (1, request.imm);
        if let Some(bytes) = &mut inline {
            sge.addr = bytes.as_mut_ptr().expose_provenance() as u64;
            (sge.length, sge.lkey) = (u32::try_from(bytes.len()).unwrap(), 0);
            wr.send_flags |= sys::IBV_SEND_INLINE;
        }
        wr.sg_list = &raw mut sge;
        let (addr, rkey) = request.remote;
        if request.opcode == Wr::ATOMIC_CMP_AND_SWP || request.opcode == Wr::ATOMIC_FETCH_AND_ADD {
            let (compare_add, swap) = request.operands;
            wr.wr.atomic = sys::ibv_send_wr_atomic { remote_addr: addr, compare_add, swap, rkey };
        } else if let Some((ah, remote_qpn, remote_qkey)) = request.datagram {
            wr.wr.ud = sys::ibv_send_wr_ud { ah, remote_qpn, remote_qkey };
        } else {
            wr.wr.rdma = sys::ibv_send_wr_rdma { remote_addr: addr, rkey };
        }
        let mut bad = null_mut();
        // SAFETY: the queue pair is alive; the memory outlives it.
        unsafe { sys::ibv_post_send(self.qp, &raw mut wr, &mut bad) }
    }

    pub(crate) fn ex(&self) -> *mut sys::ibv_qp_ex {
        // SAFETY: the queue pair is alive.
        unsafe { self.lib.verbs().ibv_qp_to_qp_ex.unwrap()(self.qp) }
    }

    fn post_extended(&self, request: &Request) -> Result<(), sys::Errno> {
        // SAFETY: the queue pair is alive; the memory outlives it.
        unsafe {
            sys::ibv_wr_start(self.ex())?;
            self.build(request);
            sys::ibv_wr_complete(self.ex())
        }
    }

    /// Adds a request to the batch.
    pub(crate) fn build(&self, request: &Request) {
        let qp = self.ex();
        let (addr, rkey) = request.remote;
        let (first, second) = request.operands;
        // SAFETY: the queue pair is alive, a batch is begun; the memory outlives it.
        unsafe {
            ((*qp).wr_id, (*qp).wr_flags) = (request.wr_id, request.flags);
            match request.opcode {
                Wr::SEND => sys::ibv_wr_send(qp),
                Wr::SEND_WITH_IMM => sys::ibv_wr_send_imm(qp, request.imm),
                Wr::SEND_WITH_INV => sys::ibv_wr_send_inv(qp, request.imm),
                Wr::RDMA_WRITE => sys::ibv_wr_rdma_write(qp, rkey, addr),
                Wr::RDMA_WRITE_WITH_IMM => sys::ibv_wr_rdma_write_imm(qp, rkey, addr, request.imm),
                Wr::RDMA_READ => sys::ibv_wr_rdma_read(qp, rkey, addr),
                Wr::ATOMIC_CMP_AND_SWP => sys::ibv_wr_atomic_cmp_swp(qp, rkey, addr, first, second),
                Wr::ATOMIC_FETCH_AND_ADD => sys::ibv_wr_atomic_fetch_add(qp, rkey, addr, first),
                Wr::LOCAL_INV => sys::ibv_wr_local_inv(qp, request.imm),
                other => panic!("no such request here: {other}"),
            }
            .unwrap();
            if let Some((ah, number, qkey)) = request.datagram {
                sys::ibv_wr_set_ud_addr(qp, ah, number, qkey).unwrap();
            }
            match &request.inline {
                Some(bytes) => sys::ibv_wr_set_inline_data(qp, bytes.as_ptr().cast_mut().cast(), bytes.len()),
                None => sys::ibv_wr_set_sge(qp, request.sge.lkey, request.sge.addr, request.sge.length),
            }
            .unwrap();
        }
    }

    /// Everything that is there.
    pub(crate) fn poll(&self) -> Vec<sys::ibv_wc> {
        self.try_poll().unwrap()
    }

    pub(crate) fn try_poll(&self) -> Result<Vec<sys::ibv_wc>, sys::Errno> {
        match self.plan.form {
            Form::Legacy => self.poll_legacy(),
            Form::Extended => self.poll_extended(),
        }
    }

    pub(crate) fn poll_legacy(&self) -> Result<Vec<sys::ibv_wc>, sys::Errno> {
        let mut places = [const { MaybeUninit::uninit() }; 32];
        // SAFETY: the queue is alive; so many places hold completions.
        unsafe {
            let count = sys::ibv_poll_cq(self.cq, &mut places)?;
            Ok(places[..count].iter().map(|place| place.assume_init()).collect())
        }
    }

    fn poll_extended(&self) -> Result<Vec<sys::ibv_wc>, sys::Errno> {
        let cq = self.cq_ex();
        let mut all = Vec::new();
        // SAFETY: the queue is alive, and the steps come in their order.
        unsafe {
            let mut more = sys::ibv_start_poll(cq)?;
            if !more {
                return Ok(all);
            }
            let mut result = Ok(());
            while more {
                all.push(current(cq));
                more = sys::ibv_next_poll(cq).unwrap_or_else(|errno| {
                    result = Err(errno);
                    false
                });
            }
            sys::ibv_end_poll(cq).unwrap();
            result.map(|()| all)
        }
    }

    pub(crate) fn cq_ex(&self) -> *mut sys::ibv_cq_ex {
        self.cq.cast()
    }

    /// Number and status of everything that is there.
    pub(crate) fn ended(&self) -> Vec<(u64, Status)> {
        self.poll().iter().map(|wc| (wc.wr_id, wc.status)).collect()
    }

    /// The library's verdict on a call of the table.
    pub(crate) fn destroy_qp(&self) -> i32 {
        // SAFETY: the queue pair is not used after.
        unsafe { (self.lib.verbs().ibv_destroy_qp)(self.qp) }
    }

    pub(crate) fn close(self) {
        let verbs = self.lib.verbs();
        // SAFETY: each object is destroyed once, after those that need it.
        unsafe {
            assert_eq!(self.destroy_qp(), 0);
            if !self.srq.is_null() {
                assert_eq!((verbs.ibv_destroy_srq)(self.srq), 0);
            }
            assert_eq!((verbs.ibv_destroy_cq)(self.cq), 0);
            assert_eq!((verbs.ibv_destroy_comp_channel)(self.channel), 0);
            assert_eq!((verbs.ibv_dereg_mr)(self.mr), 0);
            assert_eq!((verbs.ibv_dealloc_pd)(self.pd), 0);
            assert_eq!((verbs.ibv_close_device)(self.context), 0);
            drop(Box::from_raw(self.memory.cast::<[u64; BYTES / 8]>()));
        }
    }
}

/// The completion that a poll stands at.
///
/// # Safety
/// A poll of the queue is under way and stands at a completion.
unsafe fn current(cq: *mut sys::ibv_cq_ex) -> sys::ibv_wc {
    let mut wc = sys::ibv_wc::zeroed();
    // SAFETY: the caller's promise.
    unsafe {
        (wc.wr_id, wc.status) = ((*cq).wr_id, (*cq).status);
        wc.opcode = sys::ibv_wc_read_opcode(cq).unwrap();
        wc.vendor_err = sys::ibv_wc_read_vendor_err(cq).unwrap();
        wc.byte_len = sys::ibv_wc_read_byte_len(cq).unwrap();
        wc.imm_data = sys::ibv_wc_read_imm_data(cq).unwrap();
        wc.qp_num = sys::ibv_wc_read_qp_num(cq).unwrap();
        wc.src_qp = sys::ibv_wc_read_src_qp(cq).unwrap();
        wc.wc_flags = sys::ibv_wc_read_wc_flags(cq).unwrap();
        assert_ne!(sys::ibv_wc_read_completion_ts(cq).unwrap(), 0);
    }
    wc
}

/// A request, for either way of posting.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) wr_id: u64,
    pub(crate) opcode: Wr,
    pub(crate) flags: u32,
    pub(crate) sge: sys::ibv_sge,
    pub(crate) inline: Option<Vec<u8>>,
    pub(crate) imm: u32,
    pub(crate) remote: (u64, u32),
    pub(crate) operands: (u64, u64),
    pub(crate) datagram: Option<(*mut sys::ibv_ah, u32, u32)>,
}

impl Request {
    /// Signaled, of the first bytes of the end's memory.
    pub(crate) fn new(end: &End, opcode: Wr, wr_id: u64, len: u32) -> Self {
        Self {
            wr_id,
            opcode,
            flags: sys::IBV_SEND_SIGNALED,
            sge: end.sge(0, len),
            inline: None,
            imm: 0,
            remote: (0, 0),
            operands: (0, 0),
            datagram: None,
        }
    }

    /// Towards the memory of a peer, from this offset on.
    pub(crate) fn to(self, peer: &End, offset: usize) -> Self {
        Self { remote: (peer.addr(offset), peer.rkey()), ..self }
    }
}

/// Two connected ends on two devices of one library.
pub(crate) fn pair(plan: Plan) -> (End, End, Control) {
    let (lib, control) = FakeDevice::new(Options::devices(2));
    let (a, b) = (End::new(&lib, 0, plan), End::new(&lib, 1, plan));
    connect(&a, &b);
    (a, b, control)
}

pub(crate) fn connect(a: &End, b: &End) {
    for (one, other) in [(a, b), (b, a)] {
        one.to_init();
        one.to_rtr(other);
        one.to_rts();
    }
}

/// Closes both, and checks that nothing was left or done wrongly.
pub(crate) fn finish(a: End, b: End, control: &Control) {
    a.close();
    b.close();
    assert_eq!(control.faults(), []);
    assert!(control.live().is_empty(), "left: {:?}", control.live());
}
