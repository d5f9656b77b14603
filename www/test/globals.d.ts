// What tests put into a page.

declare var proglog: typeof import("../src/index.js");
declare var shared: typeof import("./vectors.js") & { [name: string]: any };
