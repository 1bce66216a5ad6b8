import Foundation
import XCTest

@testable import HidenseekCore

/// This client against tests/golden/vectors-v2.json.
final class VectorsTests: XCTestCase {
    private lazy var all: [String: Any] = {
        var folder = URL(fileURLWithPath: #filePath)
        for _ in 0..<6 { folder.deleteLastPathComponent() }
        let data = try! Data(contentsOf: folder.appendingPathComponent("tests/golden/vectors-v2.json"))
        return try! JSONSerialization.jsonObject(with: data) as! [String: Any]
    }()

    func testTickets() throws {
        XCTAssertEqual(try Ticket(bytes(all["ticket"])).id, bytes(all["ticket_sha256"]))
        for node in [all, all["explicit_ticket"] as! [String: Any]] {
            let ticket = try Ticket(bytes(node["ticket"]))
            for (found, layer) in zip(ticket.layers, node["layers"] as! [[String: Any]]) {
                XCTAssertEqual(found.shape, layer["weight_shape"] as! [Int])
                XCTAssertEqual(found.indices, layer["indices"] as! [Int])
                near(found.weights, layer["initial_weights"], 1e-6)
            }
        }
    }

    func testVotes() throws {
        let ticket = try Ticket(bytes(all["ticket"]))
        let votes = try Votes(bytes(all["votes"]), ends: ticket.ends)
        XCTAssertEqual(votes.signs, bits(all["votes_signs"]))
        XCTAssertEqual(votes.digest(), bytes(all["votes_digest"]))
        XCTAssertEqual(votes.levels, all["votes_levels"] as! [Int])
        let later = try Votes(bytes(all["later_votes"]), ends: ticket.ends, known: votes)
        XCTAssertEqual(later.signs, bits(all["later_votes_signs"]))
        XCTAssertEqual(later.dissent, all["later_votes_dissent"] as! [Int])
        near(votes.mean(), all["votes_mean"], 1e-7)
        near(votes.startScores(training().start), all["start_scores"], 1e-7)
        near(Trainer.logPrior(all["y"] as! [Int], ticket.plan.classes), all["log_prior"], 0)
    }

    func testOrderAndAdam() {
        let order = all["order"] as! [String: Any]
        let seed = Prng.mix(
            .number(order["federation_seed"] as! Int64), .number(order["round"] as! Int64), .text(order["device"] as! String))
        let steps = all["steps"] as! [[String: Any]]
        let count = (all["y"] as! [Int]).count
        var orders: [[Int]] = []
        for epoch in 0..<training().epochs {
            let one = Prng.permutation(seed, epoch, count)
            for at in stride(from: 0, to: count, by: training().batch) {
                orders.append(Array(one[at..<min(at + training().batch, count)]))
            }
        }
        XCTAssertEqual(orders, steps.map { $0["samples"] as! [Int] })
        var scores = (all["start_scores"] as! [Double]).map { Float($0) }
        var adam = Adam(training(), scores.count)
        for step in steps {
            adam.step(&scores, (step["gradient"] as! [Double]).map { Float($0) })
            near(scores, step["scores"], 2e-6)
        }
        XCTAssertEqual(scores.map { $0 >= 0 }, bits(all["signs"]))
    }

    func testMaskAndMessage() throws {
        let ends = try Ticket(bytes(all["ticket"])).ends
        let votes = try Votes(bytes(all["votes"]), ends: ends)
        XCTAssertEqual(Signs.encode(bits(all["signs"]), votes, ends), bytes(all["mask"]))
        XCTAssertEqual(try Signs.decode(bytes(all["mask"]), votes, ends), bits(all["signs"]))
        let message = try Messages.decode(bytes(all["message"]))
        guard case .maskUpdate(let update) = message else { return XCTFail("no mask") }
        XCTAssertEqual(update.signs, bytes(all["mask"]))
        XCTAssertEqual(Messages.encode(message), bytes(all["message"]))
    }

    func testCodes() throws {
        for code in all["codes"] as! [[String: String]] {
            let plain = array(code["bits"])
            XCTAssertEqual(Bits.encode(plain), bytes(code["coded"]))
            XCTAssertEqual(try Bits.decode(bytes(code["coded"]), plain.count), plain)
        }
    }

    func testAdaptive() throws {
        for node in all["adaptive"] as! [[String: Any]] {
            let (symbols, contexts) = (node["symbols"] as! [Int], node["contexts"] as! [Int])
            let (ends, size) = (node["ends"] as! [Int], node["bits"] as! Int)
            XCTAssertEqual(Adaptive.encode(symbols, contexts, ends, bits: size), bytes(node["coded"]))
            XCTAssertEqual(try Adaptive.decode(bytes(node["coded"]), contexts, ends, bits: size), symbols)
        }
    }

    func testMasks() throws {
        for node in all["masks"] as! [[String: Any]] {
            let (announced, ends, signs) = (votes(node["votes"]), node["ends"] as! [Int], array(node["signs"]))
            XCTAssertEqual(Signs.encode(signs, announced, ends), bytes(node["coded"]))
            XCTAssertEqual(try Signs.decode(bytes(node["coded"]), announced, ends), signs)
        }
    }

    func testDithered() throws {
        let node = all["dithered"] as! [String: Any]
        guard case .federation(let federation) = try Messages.decode(bytes(node["federation"])) else {
            return XCTFail("no federation")
        }
        let training = federation.training
        XCTAssertEqual(training.dither, node["dither"] as! Double)
        let (announced, seed, ends) = (votes(node["votes"]), UInt64(node["seed"] as! String)!, node["ends"] as! [Int])
        near(Dither.startScores(announced, training), node["start_scores"], 1e-7)
        let drawn = node["thresholds"] as! [Int]
        XCTAssertEqual(Prng.thresholds(seed, drawn.count), drawn)
        let known = Dither.known(announced, training, seed)
        XCTAssertEqual(known.signs, array(node["expected"]))
        XCTAssertEqual(known.levels, node["levels"] as! [Int])
        let sent = Dither.signsOf((node["scores"] as! [Double]).map { Float($0) }, training, seed)
        XCTAssertEqual(sent, array(node["bits"]))
        XCTAssertEqual(Signs.encode(sent, known, ends), bytes(node["coded"]))
        XCTAssertEqual(try Signs.decode(bytes(node["coded"]), known, ends), sent)
    }

    func testVotesCodes() throws {
        for node in all["votes_codes"] as! [[String: Any]] {
            let expected = votes(node["votes"])
            let known = node["known"] is NSNull ? nil : votes(node["known"])
            let found = try Votes(bytes(node["coded"]), ends: node["ends"] as! [Int], known: known)
            XCTAssertEqual(found.signs, expected.signs)
            XCTAssertEqual(found.dissent, expected.dissent)
            XCTAssertEqual(found.voters, expected.voters)
            XCTAssertEqual(found.digest(), bytes(node["digest"]))
        }
    }

    /// CryptoKit signs the same bytes differently every time, so what is sealed here is read here.
    func testSigning() throws {
        let node = all["signing"] as! [String: String]
        let (topic, sealed) = (node["topic"]!, bytes(node["sealed"]))
        let keys = try Keys(privateKey: bytes(node["private_key"]))
        XCTAssertEqual(keys.publicKey, bytes(node["public_key"]))
        let message = try Messages.decode(bytes(all["message"]))
        XCTAssertEqual(try Signing.unseal(topic, sealed) { _ in keys.publicKey }, message)
        XCTAssertEqual(try Signing.unseal(topic, Signing.seal(keys, topic, message)) { _ in keys.publicKey }, message)
        XCTAssertThrowsError(try Signing.unseal(topic + "/0", sealed) { _ in keys.publicKey })
        XCTAssertThrowsError(try Signing.unseal(topic, sealed) { _ in Keys().publicKey })
        var altered = sealed
        altered[20] ^= 1
        XCTAssertThrowsError(try Signing.unseal(topic, altered) { _ in keys.publicKey })
    }

    func testPrivacy() {
        let signs = (0..<1000).map { $0 % 3 == 0 }
        XCTAssertEqual(Privacy.randomise(signs, epsilon: 0), signs)
        XCTAssertEqual(Privacy.randomise(signs, epsilon: 1, random: { 0 }), signs.map { !$0 })
        XCTAssertEqual(Privacy.randomise(signs, epsilon: 1, random: { 1_155_095_000 }), signs) // 2^32 / (1 + e) is less
        let turned = zip(Privacy.randomise(signs, epsilon: 1), signs).filter { $0 != $1 }.count
        XCTAssert((170...370).contains(turned), "\(turned) of 1000 turned, about 269 expected")
    }

    func testMessages() throws {
        let messages = all["messages"] as! [String: [String: Any]]
        for (name, node) in messages {
            let field = node["fields"] as! [String: Any]
            let expected = message(name, field)
            if ["hello", "hello-draws", "hello-dithers", "state", "mask-update", "evaluation", "missed"].contains(name) {
                XCTAssertEqual(Messages.encode(expected), bytes(node["bytes"]), name)
            }
            if !["hello", "hello-draws", "hello-dithers", "state", "evaluation", "missed"].contains(name) {
                XCTAssertEqual(try Messages.decode(bytes(node["bytes"])), expected, name)
            }
        }
        XCTAssertEqual(messages.count, 16)
        let lots = all["lots"] as! [String: Any]
        for (device, lot) in lots["devices"] as! [String: Int] {
            XCTAssertEqual(Round.lot(bytes(lots["key"]), device), lot, device)
        }
    }

    func testParts() throws {
        let parts = all["parts"] as! [String: Any]
        let expected = (parts["packets"] as! [[String]]).map { Packet($0[0], bytes($0[1])) }
        let size = parts["packet_bytes"] as! Int
        XCTAssertEqual(try Envelope.split(parts["topic"] as! String, bytes(parts["whole"]), packetBytes: size), expected)
        var joiner = Joiner(maxBytes: 10_000)
        let joined = try expected.reversed().map { try joiner.add($0.topic, $0.payload) }
        XCTAssertEqual(joined.compactMap { $0 }, [Packet(parts["topic"] as! String, bytes(parts["whole"]))])
        XCTAssertNotNil(joined[joined.count - 1])
    }

    private func message(_ name: String, _ field: [String: Any]) -> Message {
        func int(_ name: String) -> Int { field[name] as! Int }
        func text(_ name: String) -> String { field[name] as! String }
        func hash(_ name: String) -> [UInt8] { bytes(field[name]) }
        func float(_ name: String) -> Double { field[name] as! Double }
        switch name {
        case "hello", "hello-draws", "hello-dithers":
            var hello = Hello(
                instance: hash("instance"), software: text("software"), runtime: text("runtime"), profile: text("profile"),
                trainSamples: int("train_samples"), testSamples: int("test_samples"), key: hash("key"), started: int("started"))
            hello.greetings = int("greetings")
            hello.draws = field["draws"] != nil
            hello.dithers = field["dithers"] != nil
            return .hello(hello)
        case "state": return .state(State(instance: hash("instance"), online: field["online"] as! Bool))
        case "welcome": return .welcome(Welcome(instance: hash("instance")))
        case "refusal":
            return .refusal(Refusal(
                instance: hash("instance"), code: text("code"), reason: text("reason"), number: int("number")))
        case "federation", "federation-dithered":
            return .federation(Federation(
                run: hash("run"), name: text("name"), rounds: int("rounds"), ticket: hash("ticket"),
                bundles: (field["bundles"] as! [String: String]).mapValues { bytes($0) },
                training: training(field["training"] as! [String: Any]), seed: int("seed"), key: hash("key"),
                issued: int("issued")))
        case "bundle-bytes": return .bundleBytes(hash("data"))
        case "round", "round-drawn":
            return .round(Round(
                run: hash("run"), number: int("number"), selected: field["selected"] as! [String],
                evaluate: field["evaluate"] as! Bool, final: field["final"] as! Bool, votes: hash("votes"), base: int("base"),
                digest: hash("digest"), draw: field["draw"].map { bytes($0) }, below: field["below"] as? Int ?? 0))
        case "mask-update":
            return .maskUpdate(MaskUpdate(
                run: hash("run"), number: int("number"), signs: hash("signs"),
                trainSamples: int("train_samples"), loss: float("loss"), correct: int("correct"),
                testSamples: int("test_samples"), trainS: float("train_s"), stepMs: float("step_ms"),
                peakMemoryKb: int("peak_memory_kb")))
        case "evaluation":
            return .evaluation(Evaluation(
                run: hash("run"), number: int("number"), correct: int("correct"), testSamples: int("test_samples")))
        case "missed": return .missed(Missed(run: hash("run"), number: int("number"), have: int("have")))
        case "catch-up":
            return .catchUp(CatchUp(
                run: hash("run"), number: int("number"), votes: hash("votes"), base: int("base"), digest: hash("digest")))
        default: return .receipt(Receipt(run: hash("run"), number: int("number")))
        }
    }

    private func training(_ node: [String: Any]? = nil) -> Training {
        let node = node ?? all["training"] as! [String: Any]
        func float(_ name: String) -> Double { node[name] as! Double }
        return Training(
            optimiser: node["optimiser"] as! String, learningRate: float("learning_rate"), beta1: float("beta1"),
            beta2: float("beta2"), epsilon: float("epsilon"), clip: float("clip"), start: float("start"),
            epochs: node["epochs"] as! Int, batch: node["batch"] as! Int, privacyEpsilon: float("privacy_epsilon"),
            dither: float("dither"))
    }

    private func near(_ found: [Float], _ expected: Any?, _ tolerance: Double) {
        let expected = expected as! [Double]
        let largest = expected.map { abs($0) }.max()!
        XCTAssertEqual(found.count, expected.count)
        for (one, other) in zip(found, expected) { XCTAssertLessThanOrEqual(abs(Double(one) - other), tolerance * largest) }
    }

    private func votes(_ node: Any?) -> Votes {
        let node = node as! [String: Any]
        return Votes(signs: array(node["signs"]), dissent: node["dissent"] as! [Int], voters: node["voters"] as! Int)
    }

    private func array(_ node: Any?) -> [Bool] { (node as! String).map { $0 == "1" } }

    private func bits(_ node: Any?) -> [Bool] { (node as! [Int]).map { $0 == 1 } }

    private func bytes(_ node: Any?) -> [UInt8] {
        let hex = Array(node as! String)
        return stride(from: 0, to: hex.count, by: 2).map { UInt8(String(hex[$0...$0 + 1]), radix: 16)! }
    }
}
