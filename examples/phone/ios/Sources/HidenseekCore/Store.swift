import Foundation

/// What a device must not forget when its process ends: one folder, every file replaced whole.
///
///     <sha256>.hnsb   the bundle
///     pending.mask    the mask without receipt
///     personal.hnsp   the signs that the last training ended with: the device's own network
public struct Store {
    private let folder: URL

    public init(_ folder: URL) throws {
        self.folder = folder
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    public func loadBundle(_ digest: [UInt8]) -> [UInt8]? {
        (try? Data(contentsOf: folder.appendingPathComponent(name(digest)))).map { [UInt8]($0) }
    }

    /// Keep a bundle and forget the others.
    public func saveBundle(_ digest: [UInt8], _ data: [UInt8]) throws {
        try replace(name(digest), data)
        for file in try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        where file.pathExtension == "hnsb" && file.lastPathComponent != name(digest) {
            try FileManager.default.removeItem(at: file)
        }
    }

    public func loadPending() -> MaskUpdate? {
        guard let data = try? Data(contentsOf: folder.appendingPathComponent("pending.mask")),
            case .maskUpdate(let update)? = try? Messages.decode([UInt8](data))
        else { return nil }
        return update
    }

    /// Write the mask down before it is first sent.
    public func savePending(_ update: MaskUpdate) throws {
        try replace("pending.mask", Messages.encode(.maskUpdate(update)))
    }

    public func dropPending() {
        try? FileManager.default.removeItem(at: folder.appendingPathComponent("pending.mask"))
    }

    /// Keep the device's own network; it is never sent.
    public func savePersonal(_ ticket: Ticket, _ round: Round, _ logPrior: [Float], _ signs: [Bool]) throws {
        var file = Array("HNSP".utf8) + [2] + ticket.id + round.run + littleEndian(UInt64(round.number))
        file += littleEndian(UInt16(logPrior.count)) + logPrior.flatMap { littleEndian($0.bitPattern) }
        file += Signs.encode(signs, [Bool](repeating: true, count: signs.count))
        try replace("personal.hnsp", file + sha256(file))
    }

    /// After a power cut the file holds either the old or the new bytes.
    private func replace(_ name: String, _ data: [UInt8]) throws {
        try Data(data).write(to: folder.appendingPathComponent(name), options: .atomic)
    }

    private func name(_ digest: [UInt8]) -> String {
        digest.map { String(format: "%02x", $0) }.joined() + ".hnsb"
    }
}
