//! What a program passes is written down the same in every run, with every argument, by every function.
#![allow(unsafe_code)]

mod common;

use common::{End, FORMS, Form, Plan, Request, connect, finish, open};
use sinew_verbs_fake::recorder::Recording;
use sinew_verbs_fake::{DeviceOptions, FakeDevice, Options};
use sinew_verbs_sys as sys;
use sys::layout::all_structures;
use sys::{IbvQpType as Type, IbvWcStatus as Status, IbvWrOpcode as Wr};

fn run(form: Form, imm: u32) -> Vec<String> {
    let (table, control) = FakeDevice::table(Options::devices(2));
    let (lib, recording) = Recording::start(table);
    let plan = Plan::new(form, Type::RC);
    let (a, b) = (End::new(&lib, 0, plan), End::new(&lib, 1, plan));
    connect(&a, &b);
    b.recv(7, 16, 32).unwrap();
    let mut send = Request::new(&a, Wr::SEND_WITH_IMM, 1, 4);
    (send.imm, send.inline) = (imm, Some(vec![0xab, 0xcd]));
    a.post(&send).unwrap();
    a.post(&Request::new(&a, Wr::RDMA_WRITE, 2, 4).to(&b, 8)).unwrap();
    assert_eq!(a.ended(), [(1, Status::SUCCESS), (2, Status::SUCCESS)]);
    assert_eq!(b.ended(), [(7, Status::SUCCESS)]);
    finish(a, b, &control);
    recording.take()
}

#[test]
fn the_same_calls_are_the_same_lines_and_another_argument_is_another_line() {
    for form in FORMS {
        let (first, second, other) = (run(form, 5), run(form, 5), run(form, 6));
        assert_eq!(first, second);
        let differing: Vec<_> = first.iter().zip(&other).filter(|(one, other)| one != other).collect();
        assert_eq!((first.len(), differing.len()), (other.len(), 1), "{differing:?}");
    }
}

#[test]
fn lines_name_objects_and_show_every_argument() {
    let legacy = run(Form::Legacy, 5);
    let has =
        |lines: &[String], line: &str| assert!(lines.iter().any(|one| one == line), "{line} in {lines:#?}");
    has(&legacy, "ibv_alloc_pd context#1");
    has(&legacy, "ibv_reg_mr pd#1 some 0x1000 0x1f");
    has(
        &legacy,
        "ibv_post_recv qp#2 { wr_id=0x7 num_sge=1 sg_list=[{ addr=mr#2+0x10 length=0x20 lkey=0x200 }] }",
    );
    has(
        &legacy,
        "ibv_post_send qp#1 { wr_id=0x1 opcode=0x3 send_flags=0xa imm_data=0x5 num_sge=1 sg_list=<abcd> wr=- }",
    );
    let extended = run(Form::Extended, 5);
    has(&extended, "ibv_wr_send_imm qp#1 request=0x1,0x2 0x5");
    has(&extended, "ibv_wr_set_inline_data qp#1 <abcd>");
    has(&extended, "ibv_wr_rdma_write qp#1 request=0x2,0x2 0x200 mr#2+0x8");
    has(&extended, "ibv_wr_set_sge qp#1 0x100 mr#1+0x0 0x4");
    has(&extended, "ibv_destroy_qp qp#1");
}

/// The functions that a structure of C holds, by name.
///
/// # Safety
/// The object is such a structure.
unsafe fn functions_of<T>(object: *const T, structure: &str) -> Vec<(&'static str, usize)> {
    let layout = all_structures().find(|layout| layout.rust == structure).expect("such a structure");
    let functions = layout.fields.iter().filter(|field| field.written.contains("extern"));
    // SAFETY: the caller's promise: a function, or null, is there.
    functions
        .map(|field| (field.c, unsafe { object.byte_add(field.offset).cast::<usize>().read() }))
        .collect()
}

/// Every function that the device has is another one when it records.
///
/// # Safety
/// The objects are such structures, made in the same way by the device and through the recorder.
unsafe fn assert_recorded<T>(plain: *const T, recorded: *const T, structure: &str, at_least: usize) {
    // SAFETY: the caller's promise.
    let (plain, recorded) = unsafe { (functions_of(plain, structure), functions_of(recorded, structure)) };
    let there: Vec<_> = plain.iter().zip(&recorded).filter(|(plain, _)| plain.1 != 0).collect();
    assert!(there.len() >= at_least, "{structure}: only {} functions", there.len());
    for ((name, plain), (_, recorded)) in there {
        assert_ne!(plain, recorded, "{structure}.{name} does not record");
    }
}

#[test]
fn every_function_of_a_table_records() {
    let devices = vec![DeviceOptions::numbered(0), DeviceOptions::efa(1)];
    let (table, efa, _control) = FakeDevice::tables(Options { devices, ..Options::default() });
    let (library, _recording) = Recording::start_with(table, efa);
    // What only answers a text or a number, whatever the device.
    let pure = |name: &str| name.ends_with("_str") || name.contains("rate");
    let mut count = 0;
    for symbol in sys::VerbsTable::SYMBOLS.iter().filter(|symbol| !pure(symbol.name)) {
        let (plain, recorded) = (table.function(symbol.name), library.verbs().function(symbol.name));
        assert_eq!(plain.is_null(), recorded.is_null(), "{}", symbol.name);
        assert!(plain.is_null() || plain != recorded, "{} does not record", symbol.name);
        count += usize::from(!plain.is_null());
    }
    let (plain, recorded) = (efa.expect("a device of EFA"), library.efa().expect("a device of EFA"));
    for symbol in sys::EfaTable::SYMBOLS {
        let (plain, recorded) = (plain.function(symbol.name), recorded.function(symbol.name));
        assert!(plain.is_null() || plain != recorded, "{} does not record", symbol.name);
        count += usize::from(!plain.is_null());
    }
    assert!(count > 45, "only {count} functions");
}

#[test]
fn every_function_of_an_object_records() {
    let (table, _control) = FakeDevice::table(Options::default());
    // SAFETY: the fake device's own table.
    let plain = unsafe { sys::Library::from_table(table, None) };
    let (recorded, _recording) = Recording::start(table);
    let plan = Plan::new(Form::Extended, Type::RC);
    let (a, b) = (End::new(&plain, 0, plan), End::new(&recorded, 0, plan));
    let memory = |context| {
        let mut attr = sys::ibv_alloc_dm_attr { length: 64, log_align_req: 0, comp_mask: 0 };
        // SAFETY: the context is open.
        unsafe { sys::ibv_alloc_dm(context, &mut attr) }.expect("device memory")
    };
    // SAFETY: objects of one device, made in the same way; its contexts have the whole structure around them.
    unsafe {
        let whole = |context| sys::verbs_get_ctx(context);
        let (plain, recorded) = (open(&plain, 0), open(&recorded, 0));
        assert_recorded(whole(plain), whole(recorded), "verbs_context", 14);
        assert_recorded(&raw const (*plain).ops, &raw const (*recorded).ops, "ibv_context_ops", 8);
        assert_recorded(a.ex(), b.ex(), "ibv_qp_ex", 16);
        assert_recorded(a.cq_ex(), b.cq_ex(), "ibv_cq_ex", 12);
        assert_recorded(memory(plain), memory(recorded), "ibv_dm", 2);
    }
}
