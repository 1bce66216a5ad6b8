#if os(iOS)
import BackgroundTasks
import Foundation
import HidenseekCore

/// Takes part while the phone charges; iOS decides when, mostly at night.
///
/// Name the identifier in Info.plist under BGTaskSchedulerPermittedIdentifiers, with the background mode `processing`;
/// call `register` before the app has finished launching, and `schedule` whenever it goes into the background.
public enum TrainingTask {
    public static let identifier = "hidenseek.training"

    /// `makeLink` makes a client and its connection, which is not open yet.
    public static func register(makeLink: @escaping () throws -> (MqttLink, Client)) {
        BGTaskScheduler.shared.register(forTaskWithIdentifier: identifier, using: nil) { task in
            let stop = StopFlag()
            task.expirationHandler = { stop.set() }
            schedule()
            DispatchQueue.global(qos: .utility).async {
                do {
                    let (link, client) = try makeLink()
                    _ = link.connect(client)
                    try client.run(keepGoing: { !stop.isSet })
                    task.setTaskCompleted(success: true)
                } catch {
                    task.setTaskCompleted(success: false)
                }
            }
        }
    }

    public static func schedule() {
        let request = BGProcessingTaskRequest(identifier: identifier)
        request.requiresExternalPower = true
        request.requiresNetworkConnectivity = true
        try? BGTaskScheduler.shared.submit(request)
    }
}

private final class StopFlag: @unchecked Sendable {
    private let lock = NSLock()
    private var stopped = false

    var isSet: Bool {
        lock.lock()
        defer { lock.unlock() }
        return stopped
    }

    func set() {
        lock.lock()
        stopped = true
        lock.unlock()
    }
}
#endif
