//! A node's barriers write through its channels: they stay its own.
use sinew_verbs::multi_channel::MultiChannel;
use sinew_verbs::network::Node;

fn program(node: &mut Node, other: MultiChannel) -> MultiChannel {
    std::mem::replace(&mut **node, other)
}

fn main() {}
