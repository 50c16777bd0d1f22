//! Flags of WASI 0.3 as those of 0.2, which mean the same, and errors the other way round.

use wasmtime_wasi::{
    p2::{FsError, bindings::filesystem::types as p2},
    p3::{bindings::filesystem::types as p3, filesystem::FilesystemError},
};

macro_rules! same_flags {
    ($function:ident, $type:ident: $($flag:ident)*) => {
        pub fn $function(flags: p3::$type) -> p2::$type {
            let mut same = p2::$type::empty();
            $(if flags.contains(p3::$type::$flag) {
                same |= p2::$type::$flag;
            })*
            same
        }
    };
}

same_flags!(path, PathFlags: SYMLINK_FOLLOW);
same_flags!(open, OpenFlags: CREATE DIRECTORY EXCLUSIVE TRUNCATE);
same_flags!(
    descriptor, DescriptorFlags:
    READ WRITE FILE_INTEGRITY_SYNC DATA_INTEGRITY_SYNC REQUESTED_WRITE_SYNC MUTATE_DIRECTORY
);

macro_rules! same_code {
    ($code:expr; $($name:ident)*; $($other:ident)*) => {
        match $code {
            $(p2::ErrorCode::$name => p3::ErrorCode::$name,)*
            $(p2::ErrorCode::$other)|* => p3::ErrorCode::Other(None),
        }
    };
}

/// A name in a directory, with what it is of.
pub fn entry(entry: p2::DirectoryEntry) -> p3::DirectoryEntry {
    use p2::DescriptorType as Is;
    let type_ = match entry.type_ {
        Is::BlockDevice => p3::DescriptorType::BlockDevice,
        Is::CharacterDevice => p3::DescriptorType::CharacterDevice,
        Is::Directory => p3::DescriptorType::Directory,
        Is::Fifo => p3::DescriptorType::Fifo,
        Is::SymbolicLink => p3::DescriptorType::SymbolicLink,
        Is::RegularFile => p3::DescriptorType::RegularFile,
        Is::Socket => p3::DescriptorType::Socket,
        Is::Unknown => p3::DescriptorType::Other(None),
    };
    let name = entry.name;
    p3::DirectoryEntry { type_, name }
}

pub fn error(error: FsError) -> FilesystemError {
    match error.downcast() {
        Ok(code) => self::code(code).into(),
        Err(trap) => FilesystemError::trap(trap),
    }
}

fn code(code: p2::ErrorCode) -> p3::ErrorCode {
    same_code! {
        code;
        Access Already BadDescriptor Busy Deadlock Quota Exist FileTooLarge IllegalByteSequence InProgress Interrupted
        Invalid Io IsDirectory Loop TooManyLinks MessageSize NameTooLong NoDevice NoEntry NoLock InsufficientMemory
        InsufficientSpace NotDirectory NotEmpty NotRecoverable Unsupported NoTty NoSuchDevice Overflow NotPermitted Pipe
        ReadOnly InvalidSeek TextFileBusy CrossDevice;
        WouldBlock
    }
}
