import Foundation
import XCTest

@testable import HidenseekCore

/// This client against tests/golden/vectors-v1.json.
final class VectorsTests: XCTestCase {
    private lazy var all: [String: Any] = {
        var folder = URL(fileURLWithPath: #filePath)
        for _ in 0..<6 { folder.deleteLastPathComponent() }
        let data = try! Data(contentsOf: folder.appendingPathComponent("tests/golden/vectors-v1.json"))
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
        let votes = try Votes(bytes(all["votes"]), kept: ticket.kept)
        XCTAssertEqual(votes.signs, bits(all["votes_signs"]))
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
        let reference = bits(all["votes_signs"])
        XCTAssertEqual(Signs.encode(bits(all["signs"]), reference), bytes(all["mask"]))
        XCTAssertEqual(try Signs.decode(bytes(all["mask"]), reference), bits(all["signs"]))
        let message = try Messages.decode(bytes(all["message"]))
        guard case .maskUpdate(let update) = message else { return XCTFail("no mask") }
        XCTAssertEqual(update.signs, bytes(all["mask"]))
        XCTAssertEqual(Messages.encode(message), bytes(all["message"]))
    }

    func testCodes() throws {
        for code in all["codes"] as! [[String: String]] {
            let array = code["bits"]!.map { $0 == "1" }
            XCTAssertEqual(Bits.encode(array), bytes(code["coded"]))
            XCTAssertEqual(try Bits.decode(bytes(code["coded"]), array.count), array)
        }
    }

    func testMessages() throws {
        let messages = all["messages"] as! [String: [String: Any]]
        for (name, node) in messages {
            let field = node["fields"] as! [String: Any]
            let expected = message(name, field)
            if ["hello", "state", "mask-update", "evaluation"].contains(name) {
                XCTAssertEqual(Messages.encode(expected), bytes(node["bytes"]), name)
            }
            if !["hello", "state", "evaluation"].contains(name) {
                XCTAssertEqual(try Messages.decode(bytes(node["bytes"])), expected, name)
            }
        }
        XCTAssertEqual(messages.count, 10)
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
        case "hello":
            return .hello(Hello(
                instance: hash("instance"), software: text("software"), runtime: text("runtime"), profile: text("profile"),
                trainSamples: int("train_samples"), testSamples: int("test_samples")))
        case "state": return .state(State(instance: hash("instance"), online: field["online"] as! Bool))
        case "welcome": return .welcome(Welcome(instance: hash("instance")))
        case "refusal": return .refusal(Refusal(instance: hash("instance"), code: text("code"), reason: text("reason")))
        case "federation":
            return .federation(Federation(
                run: hash("run"), name: text("name"), rounds: int("rounds"), ticket: hash("ticket"),
                bundles: (field["bundles"] as! [String: String]).mapValues { bytes($0) },
                training: training(field["training"] as! [String: Any]), seed: int("seed")))
        case "bundle-bytes": return .bundleBytes(hash("data"))
        case "round":
            return .round(Round(
                run: hash("run"), number: int("number"), selected: field["selected"] as! [String],
                evaluate: field["evaluate"] as! Bool, final: field["final"] as! Bool, votes: hash("votes")))
        case "mask-update":
            return .maskUpdate(MaskUpdate(
                run: hash("run"), number: int("number"), ticket: hash("ticket"), signs: hash("signs"),
                trainSamples: int("train_samples"), loss: float("loss"), correct: int("correct"),
                testSamples: int("test_samples"), trainS: float("train_s"), stepMs: float("step_ms"),
                peakMemoryKb: int("peak_memory_kb")))
        case "evaluation":
            return .evaluation(Evaluation(
                run: hash("run"), number: int("number"), correct: int("correct"), testSamples: int("test_samples")))
        default: return .receipt(Receipt(run: hash("run"), number: int("number")))
        }
    }

    private func training(_ node: [String: Any]? = nil) -> Training {
        let node = node ?? all["training"] as! [String: Any]
        func float(_ name: String) -> Double { node[name] as! Double }
        return Training(
            optimiser: node["optimiser"] as! String, learningRate: float("learning_rate"), beta1: float("beta1"),
            beta2: float("beta2"), epsilon: float("epsilon"), clip: float("clip"), start: float("start"),
            epochs: node["epochs"] as! Int, batch: node["batch"] as! Int)
    }

    private func near(_ found: [Float], _ expected: Any?, _ tolerance: Double) {
        let expected = expected as! [Double]
        let largest = expected.map { abs($0) }.max()!
        XCTAssertEqual(found.count, expected.count)
        for (one, other) in zip(found, expected) { XCTAssertLessThanOrEqual(abs(Double(one) - other), tolerance * largest) }
    }

    private func bits(_ node: Any?) -> [Bool] { (node as! [Int]).map { $0 == 1 } }

    private func bytes(_ node: Any?) -> [UInt8] {
        let hex = Array(node as! String)
        return stride(from: 0, to: hex.count, by: 2).map { UInt8(String(hex[$0...$0 + 1]), radix: 16)! }
    }
}
