// qlora export.
#pragma once

namespace CLI {
class App;
}

void add_export_command(CLI::App& app);
