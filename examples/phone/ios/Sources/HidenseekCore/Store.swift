import Foundation

/// Whom a device trusts.
struct KnownFederation: Equatable {
    let key: [UInt8] // public key of the federation
    let issued: Int // when the newest run it has heard of began, milliseconds since 1970
}

/// What a device must not forget when its process ends: one folder, every file replaced whole.
///
///     device.key       the private key, which never leaves the device
///     starts           how often the device has started
///     federation.pub   whom it trusts: the federation's public key, and when its newest run began (u64)
///     <sha256>.hnsb    the bundle
///     pending.mask     the mask without receipt
///     confirmed        run and number (u64) of the newest round whose mask has a receipt
///     personal.hnsp    the signs that the last training ended with: the device's own network
public struct Store {
    private static let key = "device.key"
    private static let starts = "starts"
    private static let federationFile = "federation.pub"
    private static let pending = "pending.mask"
    private static let confirmed = "confirmed"
    private static let confirmedBytes = 16

    private let folder: URL

    public init(_ folder: URL) throws {
        self.folder = folder
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    /// The device's keys, made when first asked for.
    public func keys() throws -> Keys {
        guard let privateKey = try read(Store.key) else {
            let fresh = Keys()
            try replace(Store.key, fresh.privateKey)
            return fresh
        }
        guard let keys = try? Keys(privateKey: privateKey) else {
            throw Stopped("the device's key is damaged: delete it; the coordinator must forget the device")
        }
        return keys
    }

    /// How often this device has started, this time included.
    public func countStart() throws -> Int {
        var count = 1
        if let before = try read(Store.starts) {
            let number = Int(String(decoding: before, as: UTF8.self)) ?? -1
            if !(0..<Int(Messages.maxInt)).contains(number) { throw Stopped("the count of starts is damaged") }
            count = number + 1
        }
        try replace(Store.starts, Array(String(count).utf8))
        return count
    }

    /// Whom this device trusts; nil before it has met any.
    func federation() throws -> KnownFederation? {
        guard let data = try read(Store.federationFile) else { return nil }
        if data.count != Signing.keyBytes + 8 { throw Stopped("it is damaged whom this device trusts: tell it with Store.trust") }
        let issued = Int(truncatingIfNeeded: littleEndian(data, Signing.keyBytes, as: UInt64.self))
        return KnownFederation(key: Array(data.prefix(Signing.keyBytes)), issued: issued)
    }

    /// Trust this federation, and no other.
    func saveFederation(_ federation: KnownFederation) throws {
        try replace(Store.federationFile, federation.key + littleEndian(UInt64(federation.issued)))
    }

    /// Trust the federation with this public key, instead of the first that the device meets.
    public func trust(_ key: [UInt8]) throws {
        if (try? federation())?.key != key { try saveFederation(KnownFederation(key: key, issued: 0)) }
    }

    public func loadBundle(_ digest: [UInt8]) throws -> [UInt8]? { try read(name(digest)) }

    /// Keep a bundle and forget the others.
    public func saveBundle(_ digest: [UInt8], _ data: [UInt8]) throws {
        try replace(name(digest), data)
        for file in try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        where file.pathExtension == "hnsb" && file.lastPathComponent != name(digest) {
            try FileManager.default.removeItem(at: file)
        }
    }

    public func loadPending() -> MaskUpdate? {
        guard let data = try? read(Store.pending), case .maskUpdate(let update)? = try? Messages.decode(data) else { return nil }
        return update
    }

    /// Write the mask down before it is first sent.
    public func savePending(_ update: MaskUpdate) throws {
        try replace(Store.pending, Messages.encode(.maskUpdate(update)))
    }

    /// The newest round whose mask the coordinator has; nil if that is not known.
    func loadConfirmed() throws -> Key? {
        guard let data = try read(Store.confirmed), data.count == Store.confirmedBytes else { return nil }
        return Key(Array(data.prefix(8)), Int(truncatingIfNeeded: littleEndian(data, 8, as: UInt64.self)))
    }

    /// The coordinator has the mask of this round: it need not be trained for again after a restart.
    func saveConfirmed(_ round: Key) throws {
        try replace(Store.confirmed, round.run + littleEndian(UInt64(round.number)))
    }

    /// The coordinator has it, or does not want it.
    public func dropPending() {
        try? FileManager.default.removeItem(at: folder.appendingPathComponent(Store.pending))
    }

    /// Keep the device's own network; it is never sent.
    public func savePersonal(_ ticket: Ticket, _ round: Round, _ logPrior: [Float], _ signs: [Bool]) throws {
        var file = Array("HNSP".utf8) + [2] + ticket.id + round.run + littleEndian(UInt64(round.number))
        file += littleEndian(UInt16(logPrior.count)) + logPrior.flatMap { littleEndian($0.bitPattern) }
        file += Bits.encode(signs.map { !$0 })
        try replace("personal.hnsp", file + sha256(file))
    }

    /// A file's bytes, nil if there is none. One that cannot be read is an error: a new key in its place would be wrong.
    private func read(_ name: String) throws -> [UInt8]? {
        let file = folder.appendingPathComponent(name)
        if !FileManager.default.fileExists(atPath: file.path) { return nil }
        return [UInt8](try Data(contentsOf: file))
    }

    /// After a power cut the file holds either the old or the new bytes. Encrypted until the phone is first unlocked.
    private func replace(_ name: String, _ data: [UInt8]) throws {
        let file = folder.appendingPathComponent(name)
        try Data(data).write(to: file, options: [.atomic, .completeFileProtectionUntilFirstUserAuthentication])
    }

    private func name(_ digest: [UInt8]) -> String {
        digest.map { String(format: "%02x", $0) }.joined() + ".hnsb"
    }
}
