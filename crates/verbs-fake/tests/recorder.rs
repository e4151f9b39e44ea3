//! What a program passes is written down the same in every run, with every argument.

mod common;

use common::{End, FORMS, Form, Plan, Request, connect, finish};
use sinew_verbs_fake::recorder::Recording;
use sinew_verbs_fake::{FakeDevice, Options};
use sinew_verbs_sys as sys;
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
