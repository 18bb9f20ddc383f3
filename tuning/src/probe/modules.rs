//! Whether the kernel has a module: loaded, built in, or to be loaded when it is asked for.

use super::KernelVersion;

/// `None`: nothing here tells.
pub(super) fn has(module: &str, kernel: &KernelVersion) -> Option<bool> {
    if std::path::Path::new(&format!("/sys/module/{module}")).exists() {
        return Some(true);
    }
    let read = |path: String| std::fs::read_to_string(path).ok();
    let list = |name: &str| read(format!("/lib/modules/{}/{name}", kernel.release));
    let lists = [list("modules.builtin"), list("modules.dep")];
    if lists
        .iter()
        .flatten()
        .any(|list| lists_module(list, module))
    {
        return Some(true);
    }
    // Where no lists are installed (containers, kernels of one piece) its functions tell.
    let symbols = read("/proc/kallsyms".to_owned());
    let told = symbols.is_some() || lists.iter().any(Option::is_some);
    told.then(|| symbols.is_some_and(|symbols| has_symbol(&symbols, module)))
}

/// Of `modules.builtin` and `modules.dep`: a path a line, what it needs behind a colon.
fn lists_module(list: &str, module: &str) -> bool {
    list.lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split(".ko").next() == Some(module)
    })
}

/// Of `/proc/kallsyms`: address, kind, name. Functions are named after the module.
fn has_symbol(symbols: &str, module: &str) -> bool {
    let prefix = format!("{module}_");
    let names = symbols.lines().filter_map(|line| line.split(' ').nth(2));
    names.into_iter().any(|name| name.starts_with(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_by_its_file_and_by_its_functions() {
        let dep = "kernel/net/netfilter/nft_tproxy.ko.xz: kernel/net/ipv4/nf_tproxy_ipv4.ko.xz\n";
        assert!(lists_module(dep, "nft_tproxy"));
        assert!(
            !lists_module(dep, "nf_tproxy_ipv4"),
            "only needed by another"
        );
        assert!(lists_module(
            "kernel/net/netfilter/nft_tproxy.ko\n",
            "nft_tproxy"
        ));
        let symbols = "0000000000000000 t nft_tproxy_init\n0000000000000000 T tcp_sendmsg\n";
        assert!(has_symbol(symbols, "nft_tproxy"));
        assert!(!has_symbol(symbols, "nft_tprox"));
    }
}
