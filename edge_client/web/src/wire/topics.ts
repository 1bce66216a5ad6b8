/** MQTT topic names of one federation (docs/wire-format.md, "Topics"); names hold letters, digits, - and _ only. */
export class Topics {
  private readonly root: string;

  constructor(federation: string, private readonly device: string) {
    this.root = `hns/${federation}`;
  }

  get announcement(): string {
    return `${this.root}/all/federation`;
  }

  get round(): string {
    return `${this.root}/all/round`;
  }

  bundle(runtime: string): string {
    return `${this.root}/all/bundle/${runtime}`;
  }

  get down(): string {
    return `${this.root}/down/${this.device}`;
  }

  up(kind: "hello" | "state" | "mask" | "evaluation" | "missed"): string {
    return `${this.root}/up/${this.device}/${kind}`;
  }

  get claim(): string {
    return `${this.root}/claim/${this.device}/request`;
  }

  get claimAnswer(): string {
    return `${this.root}/claim/${this.device}/answer`;
  }
}
