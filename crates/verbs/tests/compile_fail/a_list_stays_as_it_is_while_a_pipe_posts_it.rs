//! Who says what is done with each buffer of a list reaches neither the list nor the pipe.
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;

fn the_list(pipe: &mut Pipe<Rc>, list: &mut Vec<Buffer>) {
    let _ = pipe.post_all(list, |_| {
        list.clear();
        Verb::send()
    });
}

fn the_pipe(pipe: &mut Pipe<Rc>, list: &mut Vec<Buffer>) {
    let _ = pipe.post_all(list, |_| {
        let _ = pipe.reset();
        Verb::send()
    });
}

fn main() {}
