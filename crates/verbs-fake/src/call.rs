//! Names of the functions that a device is made of, to count their calls and to choose which fail.
//!
//! Used by `control.rs` and by every function of the table. Plain data.

macro_rules! calls {
    ( $( $name:ident = $c:literal ),* $(,)? ) => {
        /// A function of the device, by its name in C.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Call {
            $( #[doc = concat!("`", $c, "`.")] $name ),*
        }

        impl Call {
            /// Its name in C.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $c ),* }
            }
        }
    };
}

calls! {
    GetDeviceList = "ibv_get_device_list",
    FreeDeviceList = "ibv_free_device_list",
    OpenDevice = "ibv_open_device",
    CloseDevice = "ibv_close_device",
    QueryDevice = "ibv_query_device",
    QueryDeviceEx = "ibv_query_device_ex",
    QueryPort = "ibv_query_port",
    QueryGid = "ibv_query_gid",
    QueryGidEx = "ibv_query_gid_ex",
    QueryGidTable = "ibv_query_gid_table",
    QueryPkey = "ibv_query_pkey",
    GetPkeyIndex = "ibv_get_pkey_index",
    QueryRtValues = "ibv_query_rt_values_ex",
    GetAsyncEvent = "ibv_get_async_event",
    AckAsyncEvent = "ibv_ack_async_event",
    AllocPd = "ibv_alloc_pd",
    DeallocPd = "ibv_dealloc_pd",
    AllocTd = "ibv_alloc_td",
    DeallocTd = "ibv_dealloc_td",
    AllocParentDomain = "ibv_alloc_parent_domain",
    OpenXrcd = "ibv_open_xrcd",
    CloseXrcd = "ibv_close_xrcd",
    RegMr = "ibv_reg_mr",
    RegMrIova = "ibv_reg_mr_iova",
    RegDmabufMr = "ibv_reg_dmabuf_mr",
    RegDmMr = "ibv_reg_dm_mr",
    AllocNullMr = "ibv_alloc_null_mr",
    ReregMr = "ibv_rereg_mr",
    DeregMr = "ibv_dereg_mr",
    AdviseMr = "ibv_advise_mr",
    AllocMw = "ibv_alloc_mw",
    BindMw = "ibv_bind_mw",
    DeallocMw = "ibv_dealloc_mw",
    AllocDm = "ibv_alloc_dm",
    FreeDm = "ibv_free_dm",
    CopyToDm = "ibv_memcpy_to_dm",
    CopyFromDm = "ibv_memcpy_from_dm",
    CreateCompChannel = "ibv_create_comp_channel",
    DestroyCompChannel = "ibv_destroy_comp_channel",
    CreateCq = "ibv_create_cq",
    CreateCqEx = "ibv_create_cq_ex",
    ResizeCq = "ibv_resize_cq",
    ModifyCq = "ibv_modify_cq",
    DestroyCq = "ibv_destroy_cq",
    PollCq = "ibv_poll_cq",
    StartPoll = "ibv_start_poll",
    NextPoll = "ibv_next_poll",
    EndPoll = "ibv_end_poll",
    ReqNotifyCq = "ibv_req_notify_cq",
    GetCqEvent = "ibv_get_cq_event",
    AckCqEvents = "ibv_ack_cq_events",
    CreateSrq = "ibv_create_srq",
    CreateSrqEx = "ibv_create_srq_ex",
    ModifySrq = "ibv_modify_srq",
    QuerySrq = "ibv_query_srq",
    DestroySrq = "ibv_destroy_srq",
    GetSrqNum = "ibv_get_srq_num",
    PostSrqRecv = "ibv_post_srq_recv",
    CreateQp = "ibv_create_qp",
    CreateQpEx = "ibv_create_qp_ex",
    ModifyQp = "ibv_modify_qp",
    QueryQp = "ibv_query_qp",
    CreateDriverQp = "efadv_create_driver_qp",
    CreateSrdQp = "efadv_create_qp_ex",
    QueryEfa = "efadv_query_device",
    LimitRate = "ibv_modify_qp_rate_limit",
    QueryEce = "ibv_query_ece",
    SetEce = "ibv_set_ece",
    DataInOrder = "ibv_query_qp_data_in_order",
    DestroyQp = "ibv_destroy_qp",
    PostSend = "ibv_post_send",
    PostRecv = "ibv_post_recv",
    WrStart = "ibv_wr_start",
    WrComplete = "ibv_wr_complete",
    WrAbort = "ibv_wr_abort",
    AttachMcast = "ibv_attach_mcast",
    DetachMcast = "ibv_detach_mcast",
    CreateAh = "ibv_create_ah",
    CreateAhFromWc = "ibv_create_ah_from_wc",
    InitAhFromWc = "ibv_init_ah_from_wc",
    DestroyAh = "ibv_destroy_ah",
    CreateFlow = "ibv_create_flow",
    DestroyFlow = "ibv_destroy_flow",
    ForkInit = "ibv_fork_init",
}
