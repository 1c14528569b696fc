// qlora doctor: what this machine and this build can do.
#pragma once

namespace CLI {
class App;
}

void add_doctor_command(CLI::App& app);
