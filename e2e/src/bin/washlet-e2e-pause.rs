//! Holds the namespaces of a pod on the tests' node: does nothing until it is killed.

fn main() {
    loop {
        std::thread::park();
    }
}
